"""Products of packed 4- and 8-bit weights on one thread, each instruction set here, beside numpy and torch.

The two shapes of the coder weights' feed-forward layer, for one token, a batch of 8 and a prompt of 512; equality with
the dequantised weights first. The peers read float32 (numpy, torch) or bfloat16 (torch, where installed) weights. One
matrix is used again and again, so for one token it comes from a cache; the log says what memory changes.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from highrise.core.native import csrc

SHAPES = [(4864, 896), (896, 4864)]
COUNTS = [1, 8, 512]
rng = np.random.default_rng(0)
WEIGHTS = {shape: (rng.standard_normal(shape) * 0.02).astype(np.float32) for shape in SHAPES}
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")


def one_thread() -> contextlib.AbstractContextManager[object]:
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1)


def inputs(count: int, cols: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, cols)).astype(np.float32)


def rounds(isa: str, count: int) -> dict[str, int]:
    return {"rounds": 2} if isa == "portable" and count > 8 else {"rounds": 12, "warmup_rounds": 2}


def note(benchmark, shape: tuple[int, int], count: int, who: str, **more: str) -> None:
    gigaproducts = shape[0] * shape[1] * count / 1e9
    benchmark.extra_info = {
        "path": f"gemm {shape[0]}x{shape[1]}, {count} inputs",
        "who": who,
        "amount": gigaproducts,
        "unit": "GMAC",
    }
    benchmark.extra_info |= more


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("limit", ["int4", "int8"])
@pytest.mark.parametrize("isa", csrc.available_isas())
@each_shape
def test_packed(benchmark, shape: tuple[int, int], isa: str, limit: str, count: int) -> None:
    matrix = csrc.PackedMatrix(WEIGHTS[shape].reshape(-1).view(np.uint8), "F32", *shape, limit)
    x = inputs(count, shape[1])
    quantised = csrc.QuantisedInputs(x, isa=isa)
    expected = x @ matrix.unpack().T
    error = np.abs(matrix.multiply(quantised, isa=isa) - expected).max()  # most of it the inputs' 8 bits
    assert error < 0.05 * expected.std(), error
    best = isa == csrc.available_isas()[0] and limit == "int4"
    note(benchmark, shape, count, "highrise" if best else f"highrise {limit}, {isa}", isa=f"{limit}, {isa}")
    benchmark.pedantic(matrix.multiply, (quantised,), {"isa": isa}, **rounds(isa, count))


@pytest.mark.parametrize("count", COUNTS)
@each_shape
def test_numpy(benchmark, shape: tuple[int, int], count: int) -> None:
    weights, x = WEIGHTS[shape], inputs(count, shape[1])
    note(benchmark, shape, count, "numpy", note="float32 weights")
    with one_thread():
        benchmark.pedantic(lambda: x @ weights.T, rounds=12, warmup_rounds=2)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@each_shape
def test_torch(benchmark, shape: tuple[int, int], kind: str, count: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    w, x = (torch.from_numpy(a).to(getattr(torch, kind)) for a in (WEIGHTS[shape], inputs(count, shape[1])))
    expected = inputs(count, shape[1]) @ WEIGHTS[shape].T
    got = torch.nn.functional.linear(x, w).float().numpy()
    assert np.abs(got - expected).max() < 0.05 * expected.std()
    note(benchmark, shape, count, f"torch {kind}", note=f"{kind} weights")
    try:
        benchmark.pedantic(lambda: torch.nn.functional.linear(x, w), rounds=12, warmup_rounds=2)
    finally:
        torch.set_num_threads(before)
