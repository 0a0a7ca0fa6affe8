//! Compiles `csrc/` (everything but CUDA) into the one shared object.
//!
//! A file whose name ends in an instruction-set suffix is compiled for that set and is reached only
//! after a CPUID check; every other file is compiled for the plain baseline of the target. A file is compiled again
//! only when it, a header that it includes, its flags or the compiler changed.

use std::collections::hash_map::DefaultHasher;
use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
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

/// Folders with headers of others, and the versions of those.
#[derive(Default)]
struct Headers {
    folders: Vec<PathBuf>,
    versions: String,
}

/// Those of pybind11 and Python.
fn python_headers() -> Headers {
    let python = std::env::var("PYO3_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "import pybind11, sys, sysconfig
print(pybind11.__version__, sys.version.replace(chr(10), ' '))
print(pybind11.get_include())
print(sysconfig.get_path('include'))";
    let output = Command::new(&python)
        .args(["-c", script])
        .output()
        .unwrap_or_else(|error| panic!("cannot run {python} to find the pybind11 headers: {error}"));
    assert!(
        output.status.success(),
        "{python} has no pybind11 to compile csrc/bind with: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = said.lines();
    let versions = lines.next().unwrap_or_default().to_owned();
    Headers { folders: lines.map(PathBuf::from).collect(), versions }
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

/// `path` and the headers of `root` that it includes, directly or not.
fn with_headers(path: &Path, root: &Path, found: &mut BTreeSet<PathBuf>) {
    if !found.insert(path.to_owned()) {
        return;
    }
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    for name in text.lines().filter_map(|line| line.trim_start().strip_prefix("#include \"")?.split('"').next()) {
        let beside = path.parent().into_iter().map(|folder| folder.join(name));
        if let Some(header) = beside.chain([root.join(name)]).find(|candidate| candidate.is_file()) {
            with_headers(&header, root, found);
        }
    }
}

/// What the object of `path` depends on, as one number.
fn fingerprint(path: &Path, root: &Path, settings: &str) -> String {
    let mut found = BTreeSet::new();
    with_headers(path, root, &mut found);
    let mut hasher = DefaultHasher::new();
    settings.hash(&mut hasher);
    for file in found {
        file.hash(&mut hasher);
        std::fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    format!("{:016x}", hasher.finish())
}

fn compiler_version(build: &cc::Build) -> String {
    let output = build.get_compiler().to_command().arg("--version").output();
    output.map_or_else(|_| String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compile `files` with `flags` and link them in as the static library `name`.
fn compile(name: &str, files: &[PathBuf], root: &Path, flags: &[&str], system: &Headers) {
    if files.is_empty() {
        return;
    }
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(3).include(root);
    for flag in COMMON_FLAGS.iter().chain(flags) {
        build.flag(flag);
    }
    for include in &system.folders {
        build.flag("-isystem").flag(include.to_string_lossy().as_ref());
    }
    let settings = format!("{} {flags:?} {:?} {}", compiler_version(&build), system.folders, system.versions);
    let stamps = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name);
    std::fs::create_dir_all(&stamps).unwrap_or_else(|error| panic!("cannot make {}: {error}", stamps.display()));

    let mut objects = Vec::new();
    let mut stale = Vec::new();
    for file in files {
        let stamp = stamps.join(file.file_stem().expect("a source has a name"));
        let wanted = fingerprint(file, root, &settings);
        let kept = std::fs::read_to_string(&stamp).unwrap_or_default();
        match kept.split_once('\n') {
            Some((known, object)) if known == wanted && Path::new(object).is_file() => objects.push(object.into()),
            _ => stale.push((file, stamp, wanted)),
        }
    }
    if !stale.is_empty() {
        let made = build.clone().files(stale.iter().map(|(file, ..)| *file)).compile_intermediates();
        for ((_, stamp, fingerprint), object) in stale.into_iter().zip(made) {
            std::fs::write(&stamp, format!("{fingerprint}\n{}", object.display()))
                .unwrap_or_else(|error| panic!("cannot write {}: {error}", stamp.display()));
            objects.push(object);
        }
    }
    objects.sort();
    build.objects(objects).compile(name);
}

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../csrc");
    let architecture = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-env-changed=PYO3_PYTHON");
    println!("cargo:rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    if std::env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy")) {
        return; // it reads Rust and links nothing
    }

    let kernels: Vec<PathBuf> = ["common", "serve"].iter().flat_map(|folder| sources(&root.join(folder))).collect();
    let (special, plain): (Vec<_>, Vec<_>) = kernels.into_iter().partition(|path| isa_of(path).is_some());

    compile("highrise_bind", &sources(&root.join("bind")), &root, &[], &python_headers());
    let none = Headers::default();
    compile("highrise_kernels", &plain, &root, &[], &none);
    for (suffix, needs, flags) in ISA_FLAGS {
        if *needs != architecture {
            continue;
        }
        let files: Vec<PathBuf> =
            special.iter().filter(|path| isa_of(path).is_some_and(|(own, ..)| own == suffix)).cloned().collect();
        compile(&format!("highrise_kernels{suffix}"), &files, &root, flags, &none);
    }
    println!("cargo:rustc-link-lib=pthread");
}
