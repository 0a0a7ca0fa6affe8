"""Kernels know neither Python nor torch, and CUDA sources know nothing of the tests that run them on a CPU."""

from __future__ import annotations

import re

from tests.cuda_on_cpu.library import ROOT


def test_kernels_include_no_python_and_no_torch() -> None:
    files = [path for folder in ("serve", "common", "cuda") for path in sorted((ROOT / "csrc" / folder).rglob("*.*"))]
    sources = [path for path in files if path.suffix in (".cu", ".cuh", ".cpp", ".h") and path.name != "module.cpp"]
    assert len(sources) > 10
    for path in sources:
        for line in path.read_text().splitlines():
            included = re.match(r'\s*#\s*include\s*[<"]([^>"]+)', line)
            if included:
                assert not re.search(r"pybind11|Python\.h|torch|cuda_on_cpu|fibres", included[1]), f"{path}: {line}"
