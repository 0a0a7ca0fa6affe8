//! Compiles `csrc/` (everything but CUDA) into the one shared object.
//!
//! A file whose name ends in an instruction-set suffix is compiled for that set and is reached only
//! after a CPUID check; every other file is compiled for the plain baseline of the target.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Instruction-set suffix of a file stem, the architecture it belongs to, its compiler flags.
const ISA_FLAGS: &[(&str, &str, &[&str])] = &[
    ("_avx2", "x86_64", &["-mavx2", "-mfma", "-mf16c"]),
    ("_avx512", "x86_64", &["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]),
    (
        "_avx512vnni",
        "x86_64",
        &["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni"],
    ),
    (
        "_amx",
        "x86_64",
        &[
            "-mavx2",
            "-mfma",
            "-mf16c",
            "-mavx512f",
            "-mavx512bw",
            "-mavx512vl",
            "-mavx512dq",
            "-mavx512vnni",
            "-mavx512bf16",
            "-mamx-tile",
            "-mamx-bf16",
        ],
    ),
    ("_neon", "aarch64", &[]),
];

const COMMON_FLAGS: &[&str] =
    &["-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"];

fn python_include_dirs() -> Vec<PathBuf> {
    let python = std::env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "import pybind11, sysconfig; print(pybind11.get_include()); print(sysconfig.get_path('include'))";
    let output = Command::new(&python)
        .args(["-c", script])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {python} to find the pybind11 headers: {error}"));
    assert!(
        output.status.success(),
        "{python} has no pybind11 to compile csrc/bind with: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    found.sort();
    found
}

fn isa_of(path: &Path) -> Option<&'static (&'static str, &'static str, &'static [&'static str])> {
    let stem = path.file_stem()?.to_str()?;
    ISA_FLAGS.iter().filter(|(suffix, ..)| stem.ends_with(suffix)).max_by_key(|(suffix, ..)| suffix.len())
}

fn compile(name: &str, files: &[PathBuf], root: &Path, flags: &[&str], system_includes: &[PathBuf]) {
    if files.is_empty() {
        return;
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).include(root).files(files);
    for flag in COMMON_FLAGS.iter().chain(flags) {
        build.flag(flag);
    }
    for include in system_includes {
        build.flag("-isystem").flag(include.to_string_lossy().as_ref());
    }
    build.compile(name);
}

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../csrc");
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");

    let kernels: Vec<PathBuf> = ["common", "serve"].iter().flat_map(|folder| sources(&root.join(folder))).collect();
    let (special, plain): (Vec<_>, Vec<_>) = kernels.into_iter().partition(|path| isa_of(path).is_some());

    compile("highrise_bind", &sources(&root.join("bind")), &root, &[], &python_include_dirs());
    compile("highrise_kernels", &plain, &root, &[], &[]);
    for (suffix, needs, flags) in ISA_FLAGS {
        if *needs != architecture {
            continue;
        }
        let files: Vec<PathBuf> =
            special.iter().filter(|path| isa_of(path).is_some_and(|(own, ..)| own == suffix)).cloned().collect();
        compile(&format!("highrise_kernels{suffix}"), &files, &root, flags, &[]);
    }
    println!("cargo:rustc-link-lib=pthread");
}
