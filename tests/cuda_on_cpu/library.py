"""Compiles the CUDA sources with the C++ compiler and calls them; arrays come with guards of poison around them."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.cuda_kernels import AttentionCase, from_bits, to_bits

ROOT = Path(__file__).parents[2]
_GUARD = 64
_POISON = 0xFFFF  # NaN in both 16-bit formats


def compiler() -> str | None:
    """The C++ compiler, or None."""
    return os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def build(folder: Path, csrc: Path) -> ctypes.CDLL:
    """The library of the kernels, compiled into `folder`."""
    here = ROOT / "tests" / "cuda_on_cpu"
    target = folder / "cuda_on_cpu.so"
    sources = [csrc / "serve/attention.cu", csrc / "serve/gemm_int4.cu", here / "entry.cpp"]
    command = [str(compiler()), "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    command += ["-fPIC", "-shared"]
    command += [f"-I{here / 'include'}", f"-I{csrc}", "-x", "c++", *map(str, sources), "-o", str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    library = ctypes.CDLL(str(target))
    library.last_error.restype = ctypes.c_char_p
    library.workspace_bytes.restype = ctypes.c_size_t
    return library


class Guarded:
    """A copy of an array with poison before and behind it: a read outside gives NaN, a write outside is seen."""

    def __init__(self, array: NDArray[Any]) -> None:
        words = np.ascontiguousarray(array).view(np.uint16).reshape(-1)
        # 16-byte alignment of the data, as device memory has
        self._whole = np.full(words.size + 2 * _GUARD + 8, _POISON, dtype=np.uint16)
        self._start = _GUARD + (-(self._whole.ctypes.data // 2 + _GUARD)) % 8
        self._size = words.size
        self._whole[self._start : self._start + words.size] = words

    @property
    def pointer(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self._whole.ctypes.data + 2 * self._start)

    def words(self) -> NDArray[np.uint16]:
        """The 16-bit words inside, after checking the guards."""
        end = self._start + self._size
        assert (self._whole[: self._start] == _POISON).all(), "written before the beginning"
        assert (self._whole[end:] == _POISON).all(), "written past the end"
        return self._whole[self._start : end]


class Kernels:
    """The launchers with numpy arrays in and out; raises RuntimeError on a status that is not zero."""

    def __init__(self, folder: Path, *, csrc: Path = ROOT / "csrc") -> None:
        self.library = build(folder, csrc)

    def options(self, *, seed: int = 0, eager_copies: bool = False) -> None:
        """Order of the threads, and when asynchronous copies land."""
        self.library.set_options(ctypes.c_uint(seed), int(eager_copies))

    def check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"status {status}: {self.library.last_error().decode()}")

    def attention(self, case: AttentionCase, *, splits: int) -> NDArray[np.float32]:
        batch, heads, head_dim = case.query.shape
        _, kv_heads, page_size, _ = case.keys.shape
        out = Guarded(np.full(case.query.shape, _POISON, dtype=np.uint16))
        size = self.library.workspace_bytes(batch, heads, head_dim, splits)
        workspace = Guarded(np.full(size // 2, _POISON, dtype=np.uint16))
        inputs = [Guarded(array) for array in (case.query, case.keys, case.values, case.pages, case.lengths)]
        self.check(
            self.library.attention(
                *(array.pointer for array in inputs),
                out.pointer,
                workspace.pointer,
                batch,
                heads,
                kv_heads,
                head_dim,
                page_size,
                case.pages.shape[1],
                splits,
                ctypes.c_float(case.scale),
                int(case.bfloat),
            )
        )
        workspace.words()
        return from_bits(out.words(), bfloat=case.bfloat).reshape(case.query.shape)

    def gemm(
        self, x: NDArray[np.float32], packed: NDArray[Any], scale: NDArray[Any], minimum: NDArray[Any], *, bfloat: bool
    ) -> NDArray[np.float32]:
        (m, k), n = x.shape, scale.shape[0]
        out = Guarded(np.full((m, n), _POISON, dtype=np.uint16))
        inputs = [Guarded(array) for array in (to_bits(x, bfloat=bfloat), packed, scale, minimum)]
        self.check(self.library.gemm(*(array.pointer for array in inputs), out.pointer, m, n, k, int(bfloat)))
        return from_bits(out.words(), bfloat=bfloat).reshape(m, n)
