"""The kernels on a GPU against the same numpy references that the CPU run uses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.reference import cuda_kernels as reference
from tests.reference.cuda_kernels import AttentionCase, from_bits, make_attention, quantise, relative_error, to_bits

_POISON = 0xFFFF
_GUARD_BYTES = 256


@contextlib.contextmanager
def on_device(cuda: ModuleType, *arrays: NDArray[Any]) -> Iterator[list[int]]:
    """Device copies of the arrays, each with poison behind it that must still be there at the end."""
    pointers = []
    guard = np.full(_GUARD_BYTES, 0xFF, dtype=np.uint8)
    ends = [array.nbytes for array in arrays]
    try:
        for array in arrays:
            pointers.append(cuda.allocate(array.nbytes + _GUARD_BYTES))
            whole = np.concatenate([np.ascontiguousarray(array).view(np.uint8).reshape(-1), guard])
            cuda.copy_to_device(pointers[-1], whole)
        yield pointers
        for pointer, end in zip(pointers, ends, strict=True):
            whole = np.empty(end + _GUARD_BYTES, dtype=np.uint8)
            cuda.copy_to_host(whole, pointer)
            assert (whole[end:] == 0xFF).all(), "written past the end"
    finally:
        for pointer in pointers:
            cuda.release(pointer)


def run_attention(cuda: ModuleType, case: AttentionCase, *, splits: int) -> NDArray[np.float32]:
    batch, heads, head_dim = case.query.shape
    _, kv_heads, page_size, _ = case.keys.shape
    out = np.full(case.query.shape, _POISON, dtype=np.uint16)
    workspace = np.full(max(8, cuda.attention_workspace_bytes(batch, heads, head_dim, splits) // 2), _POISON, np.uint16)
    inputs = (case.query, case.keys, case.values, case.pages, case.lengths, out, workspace)
    names = ("query", "key_pages", "value_pages", "page_table", "lengths", "output", "workspace")
    with on_device(cuda, *inputs) as pointers:
        cuda.attention_decode(
            **dict(zip(names, pointers, strict=True)),
            batch=batch,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            page_size=page_size,
            max_pages=case.pages.shape[1],
            splits=splits,
            scale=case.scale,
            type="bfloat16" if case.bfloat else "float16",
        )
        cuda.synchronize()
        cuda.copy_to_host(out, pointers[5])
    return from_bits(out, bfloat=case.bfloat)


@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(14, 2, 64), (9, 3, 64), (32, 8, 128), (8, 8, 128), (16, 1, 128), (4, 2, 256)]
)
def test_attention(cuda: ModuleType, heads: int, kv_heads: int, head_dim: int, splits: int, bfloat: bool) -> None:
    case = make_attention(
        lengths=[1000, 0, 1, 333, 64],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        page_size=16,
        bfloat=bfloat,
        seed=3,
    )
    error = relative_error(run_attention(cuda, case, splits=splits), reference.attention(case))
    assert error < (6e-3 if bfloat else 8e-4)


@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize("m", [1, 2, 7, 8, 16, 63, 64, 65, 200])
@pytest.mark.parametrize(("n", "k"), [(896, 896), (4864, 896), (70, 4864), (5, 96)])
def test_gemm(cuda: ModuleType, m: int, n: int, k: int, bfloat: bool) -> None:
    generator = np.random.default_rng(m * n)
    bits = to_bits(generator.standard_normal((m, k)).astype(np.float32), bfloat=bfloat)
    packed, scale, minimum = quantise(generator.standard_normal((n, k)).astype(np.float32))
    out = np.full((m, n), _POISON, dtype=np.uint16)
    names = ("input", "packed", "scale", "minimum", "output")
    with on_device(cuda, bits, packed, scale, minimum, out) as pointers:
        kind = "bfloat16" if bfloat else "float16"
        cuda.gemm_int4(**dict(zip(names, pointers, strict=True)), m=m, n=n, k=k, type=kind)
        cuda.synchronize()
        cuda.copy_to_host(out, pointers[4])
    wanted = reference.gemm(from_bits(bits, bfloat=bfloat), packed, scale, minimum)
    assert relative_error(from_bits(out, bfloat=bfloat), wanted) < (6e-3 if bfloat else 8e-4)
