"""The CUDA sources, compiled as C++ and run by fibres, against numpy: results, orders of threads, late copies, guards.

This proves indices, masks, barriers and arithmetic. It says nothing of speed, nor of what only hardware can show.
"""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cuda_on_cpu.library import ROOT, Kernels, compiler
from tests.reference import cuda_kernels as reference
from tests.reference.cuda_kernels import from_bits, make_attention, quantise, relative_error, to_bits

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(tmp_path_factory.mktemp("cuda_on_cpu"))


def tolerance(*, bfloat: bool) -> float:
    """Inputs are exact in the reference; outputs and, in the tensor path, weights are rounded to 16 bits once."""
    return 6e-3 if bfloat else 8e-4


@pytest.mark.parametrize("bfloat", [False, True])
def test_twins_convert_as_numpy_does(kernels: Kernels, bfloat: bool) -> None:
    generator = np.random.default_rng(1)
    exponents = generator.integers(-26, 16, 20_000)
    values = (generator.standard_normal(20_000) * 2.0**exponents).astype(np.float32)
    values = np.concatenate([values, np.float32([0, -0.0, 65504, 65519.9, 1e-9, 2**-24, 2**-25, 3 * 2**-25, np.inf])])
    out = np.empty_like(values)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (values, out)]
    kernels.library.round_trip(*pointers, values.size, int(bfloat))
    np.testing.assert_array_equal(out, from_bits(to_bits(values, bfloat=bfloat), bfloat=bfloat))


@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"),
    [(14, 2, 64), (9, 3, 64), (4, 4, 64), (8, 1, 128), (4, 2, 128), (10, 1, 64), (2, 1, 256)],
)
@pytest.mark.parametrize("splits", [1, 3])
def test_attention(kernels: Kernels, heads: int, kv_heads: int, head_dim: int, splits: int, bfloat: bool) -> None:
    case = make_attention(
        lengths=[37, 0, 1, 70], heads=heads, kv_heads=kv_heads, head_dim=head_dim, page_size=16, bfloat=bfloat, seed=7
    )
    kernels.options(seed=3)
    out = kernels.attention(case, splits=splits)
    assert relative_error(out, reference.attention(case)) < tolerance(bfloat=bfloat)
    assert not out[1].any()  # the empty sequence


@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=3),
    group=st.integers(1, 9),
    kv_heads=st.integers(1, 2),
    page_size=st.sampled_from([1, 5, 16, 32]),
    splits=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_attention_agrees_for_any_shape(
    kernels: Kernels, lengths: list[int], group: int, kv_heads: int, page_size: int, splits: int, seed: int
) -> None:
    case = make_attention(
        lengths=lengths,
        heads=group * kv_heads,
        kv_heads=kv_heads,
        head_dim=64,
        page_size=page_size,
        bfloat=False,
        seed=seed,
    )
    kernels.options(seed=seed)
    assert relative_error(kernels.attention(case, splits=splits), reference.attention(case)) < tolerance(bfloat=False)


def make_gemm(m: int, n: int, k: int, *, bfloat: bool, seed: int = 5) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    x = from_bits(to_bits(generator.standard_normal((m, k)).astype(np.float32), bfloat=bfloat), bfloat=bfloat)
    return (x, *quantise(generator.standard_normal((n, k)).astype(np.float32)))


@pytest.mark.parametrize("bfloat", [False, True])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 64, 64),
        (1, 5, 2048),
        (3, 33, 96),
        (7, 130, 896),
        (8, 64, 64),
        (9, 70, 96),
        (64, 128, 256),
        (65, 65, 32),
        (100, 24, 352),
    ],
)
def test_gemm(kernels: Kernels, m: int, n: int, k: int, bfloat: bool) -> None:
    inputs = make_gemm(m, n, k, bfloat=bfloat)
    kernels.options(seed=2)
    out = kernels.gemm(*inputs, bfloat=bfloat)
    assert relative_error(out, reference.gemm(*inputs)) < tolerance(bfloat=bfloat)


@settings(max_examples=15)
@given(m=st.integers(1, 70), n=st.integers(1, 140), groups=st.integers(1, 9), seed=st.integers(0, 1000))
def test_gemm_agrees_for_any_shape(kernels: Kernels, m: int, n: int, groups: int, seed: int) -> None:
    inputs = make_gemm(m, n, groups * 32, bfloat=False, seed=seed)
    kernels.options(seed=seed)
    assert relative_error(kernels.gemm(*inputs, bfloat=False), reference.gemm(*inputs)) < tolerance(bfloat=False)


def test_no_order_of_threads_and_no_timing_of_copies_changes_a_bit(kernels: Kernels) -> None:
    case = make_attention(lengths=[50], heads=4, kv_heads=2, head_dim=64, page_size=16, bfloat=False, seed=1)
    inputs = make_gemm(20, 72, 416, bfloat=False)
    results = []
    for seed in (0, 1, 2, 3):
        for eager in (False, True):
            kernels.options(seed=seed, eager_copies=eager)
            results.append((kernels.attention(case, splits=2), kernels.gemm(*inputs, bfloat=False)))
    for attention, product in results[1:]:
        np.testing.assert_array_equal(attention, results[0][0])
        np.testing.assert_array_equal(product, results[0][1])


def test_bad_arguments_have_their_own_status(kernels: Kernels) -> None:
    case = make_attention(lengths=[5], heads=2, kv_heads=1, head_dim=96, page_size=16, bfloat=False, seed=1)
    with pytest.raises(RuntimeError, match="status -1"):
        kernels.attention(case, splits=1)
    case = make_attention(lengths=[5], heads=3, kv_heads=2, head_dim=64, page_size=16, bfloat=False, seed=1)
    with pytest.raises(RuntimeError, match="status -2"):
        kernels.attention(case, splits=1)
    x, packed, scale, minimum = make_gemm(1, 4, 64, bfloat=False)
    with pytest.raises(RuntimeError, match="status -3"):
        kernels.gemm(np.ascontiguousarray(x[:, :40]), packed, scale, minimum, bfloat=False)
    with pytest.raises(RuntimeError, match="status -4"):
        kernels.gemm(x[:0], packed, scale, minimum, bfloat=False)


def test_the_machine_finds_what_it_is_there_to_find(kernels: Kernels) -> None:
    for launch, words in (("launch_divergent", "barrier"), ("launch_overrun", "past its end")):
        with pytest.raises(RuntimeError, match=words):
            kernels.check(getattr(kernels.library, launch)())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("copy_wait<kStages - 2>();\n    __syncthreads();", "copy_wait<kStages - 2>();"),
        ("copy_wait<kStages - 2>();", "copy_wait<kStages - 1>();"),
        ("const int next = tile + kStages - 1;", "const int next = tile + kStages;"),
    ],
    ids=["no barrier", "one wait too few", "a stage too far"],
)
def test_a_planted_race_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    source = tmp_path / "csrc" / "serve" / "gemm_int4.cu"
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, wrong))
    broken = Kernels(tmp_path, csrc=tmp_path / "csrc")
    inputs = make_gemm(20, 72, 416, bfloat=False)
    errors = []
    for seed in range(6):
        broken.options(seed=seed, eager_copies=bool(seed % 2))
        errors.append(relative_error(broken.gemm(*inputs, bfloat=False), reference.gemm(*inputs)))
    assert max(errors) > 0.01
