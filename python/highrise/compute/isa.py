"""Floor 1, instruction sets: which of the sets our kernels know this processor has.

Names are the words a user may give as `isa=`. Reads /proc/cpuinfo; where that is absent only the architecture's
baseline is named. Knows nothing of kernels: they ask CPUID themselves, this is for plans and reports.
"""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["isa_flags", "parse_cpuinfo"]

# our name -> every flag of /proc/cpuinfo it needs
_X86 = {
    "avx2": {"avx2", "fma", "f16c"},
    "avx_vnni": {"avx2", "avx_vnni"},
    "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq"},
    "avx512vnni": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"},
    "avx512bf16": {"avx512f", "avx512_bf16"},
    "avx512fp16": {"avx512f", "avx512_fp16"},
    "amx_int8": {"amx_tile", "amx_int8"},
    "amx_bf16": {"amx_tile", "amx_bf16"},
}
_ARM = {
    "neon": {"asimd"},
    "dotprod": {"asimddp"},
    "i8mm": {"i8mm"},
    "bf16": {"bf16"},
    "sve": {"sve"},
    "sve2": {"sve2"},
}
_BASELINE = {"x86_64": "sse2", "aarch64": "neon", "arm64": "neon"}


def parse_cpuinfo(text: str) -> tuple[str, set[str]]:
    """Model name and flags of the first processor in a /proc/cpuinfo text; both may be empty."""
    model, flags = "", set[str]()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        key = key.strip()
        if key == "model name" and not model:
            model = value.strip()
        elif key in ("flags", "Features") and not flags:
            flags = set(value.split())
    return model, flags


def isa_flags(*, cpuinfo: Path = Path("/proc/cpuinfo"), architecture: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Model name, and our names of the instruction sets present, baseline first."""
    architecture = architecture or platform.machine()
    try:
        model, flags = parse_cpuinfo(cpuinfo.read_text())
    except OSError:
        model, flags = "", set()
    known = _X86 if architecture == "x86_64" else _ARM if architecture in ("aarch64", "arm64") else {}
    baseline = _BASELINE.get(architecture, "portable")
    names = [baseline, *(name for name, needs in known.items() if needs <= flags and name != baseline)]
    return model or platform.processor() or architecture, tuple(names)
