"""Products of packed 4- and 8-bit weights on one thread, each instruction set here, beside numpy and torch.

One layer of the coder weights (gate: 4864 x 896), for one token, a batch of 8 and a prompt of 256; equality with the
dequantised weights first. The peers read float32 (numpy) or bfloat16 (torch, where installed) weights.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from highrise.core.native import csrc

ROWS, COLS = 4864, 896
COUNTS = [1, 8, 256]
rng = np.random.default_rng(0)
weights = (rng.standard_normal((ROWS, COLS)) * 0.02).astype(np.float32)
raw = weights.reshape(-1).view(np.uint8)


def one_thread() -> contextlib.AbstractContextManager[object]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1)


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, COLS)).astype(np.float32)


def note(benchmark, count: int, who: str, **more: str) -> None:
    gigaproducts = ROWS * COLS * count / 1e9
    benchmark.extra_info = {
        "path": f"gemm 4864x896, {count} inputs",
        "who": who,
        "amount": gigaproducts,
        "unit": "GMAC",
    }
    benchmark.extra_info |= more


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("limit", ["int4", "int8"])
@pytest.mark.parametrize("isa", [isa for isa in csrc.available_isas() if isa != "portable"] or ["portable"])
def test_packed(benchmark, isa: str, limit: str, count: int) -> None:
    matrix = csrc.PackedMatrix(raw, "F32", ROWS, COLS, limit, isa=isa)
    x = inputs(count)
    quantised = csrc.QuantisedInputs(x, isa=isa)
    expected = x @ matrix.unpack().T
    error = np.abs(matrix.multiply(quantised, isa=isa) - expected).max()
    assert error < 0.05 * expected.std(), error
    best = isa == csrc.available_isas()[0] and limit == "int4"
    note(benchmark, count, "highrise" if best else f"highrise {limit}, {isa}", isa=isa)
    benchmark.pedantic(matrix.multiply, (quantised,), {"isa": isa}, rounds=12, warmup_rounds=2)


@pytest.mark.parametrize("count", COUNTS)
def test_numpy(benchmark, count: int) -> None:
    x = inputs(count)
    note(benchmark, count, "numpy", note="float32 weights")
    with one_thread():
        benchmark.pedantic(lambda: x @ weights.T, rounds=12, warmup_rounds=2)


@pytest.mark.parametrize("count", COUNTS)
def test_torch(benchmark, count: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    w, x = torch.from_numpy(weights).bfloat16(), torch.from_numpy(inputs(count)).bfloat16()
    note(benchmark, count, "torch", note="bfloat16 weights")
    try:
        benchmark.pedantic(lambda: torch.nn.functional.linear(x, w), rounds=12, warmup_rounds=2)
    finally:
        torch.set_num_threads(before)
