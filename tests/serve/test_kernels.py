"""Each kernel, on each instruction set of this CPU, against its numpy reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from highrise.core.blocks import BLOCKS, dequantise
from highrise.core.native import csrc
from tests.reference import attention, decoder, quant
from tests.serve.isas import AVAILABLE, each_isa

BLOCK_BYTES = {name: block.num_bytes for name, block in BLOCKS.items() if block.weights > 1}
BLOCK_WEIGHTS = {name: BLOCKS[name].weights for name in BLOCK_BYTES}
# Bytes at which a block's half-precision scales (and minima) begin.
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}


def random_blocks(rng: np.random.Generator, kind: str, rows: int, cols: int) -> np.ndarray:
    """Blocks of random codes with scales as a trained network has them."""
    count = rows * cols // BLOCK_WEIGHTS[kind]
    blocks = rng.integers(0, 256, (count, BLOCK_BYTES[kind]), dtype=np.uint8)
    for at in HALVES[kind]:
        blocks[:, at : at + 2] = rng.uniform(-0.01, 0.01, (count, 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(-1)


def as_bytes(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8)


@each_isa
@pytest.mark.parametrize("kind", list(BLOCK_BYTES))
@pytest.mark.parametrize("inputs", [1, 2, 3, 5, 13, 40])
def test_product_of_stored_blocks(isa: str, kind: str, inputs: int) -> None:
    rng = np.random.default_rng([list(BLOCK_BYTES).index(kind), inputs])
    rows, cols = 37, 512
    raw = random_blocks(rng, kind, rows, cols)
    weights = dequantise(raw, kind).reshape(rows, cols)
    x = rng.standard_normal((inputs, cols)).astype(np.float32)
    codes, scales = quant.quantise_activations(x)
    matrix = csrc.PackedMatrix(raw, kind, rows, cols, isa=isa)
    got = matrix.multiply(csrc.QuantisedInputs(x, isa=isa), isa=isa)
    if isa == "amx" and inputs >= 32:  # bfloat16 inputs and weights instead of int8 codes
        expected, tolerance = x.astype(np.float64) @ weights.T.astype(np.float64), 6e-3
    else:
        expected, tolerance = quant.multiply(weights, codes, scales), 1e-3  # scales of K blocks are rounded to 16 bits
    size = np.sqrt((weights.astype(np.float64) ** 2).sum(axis=1)) * np.abs(x).max()
    assert np.abs((got - expected) / size).max() < tolerance


@pytest.mark.parametrize("kind", list(BLOCK_BYTES))
def test_packing_keeps_stored_weights(kind: str) -> None:
    rng = np.random.default_rng(5)
    raw = random_blocks(rng, kind, 19, 256)
    weights = dequantise(raw, kind).reshape(19, 256)
    unpacked = csrc.PackedMatrix(raw, kind, 19, 256).unpack()
    exact = kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
    np.testing.assert_allclose(unpacked, weights, rtol=0 if exact else 2e-3, atol=2e-6 if exact else 2e-3)


@each_isa
@settings(max_examples=25)
@given(
    rows=st.integers(1, 70),
    cols=st.integers(1, 200),
    inputs=st.integers(1, 37),
    kind=st.sampled_from(["F32", "F16", "BF16"]),
    weights=st.sampled_from(["stored", "int8", "int6", "int5", "int4"]),
    seed=st.integers(0, 2**32 - 1),
)
@example(rows=1, cols=1, inputs=32, kind="BF16", weights="stored", seed=0)
def test_product_of_any_shape(isa: str, rows: int, cols: int, inputs: int, kind: str, weights: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, cols)).astype(np.float32)
    if kind == "F16":
        raw = as_bytes(values.astype(np.float16))
    elif kind == "BF16":
        raw = as_bytes((values.view(np.uint32) >> 16).astype(np.uint16))
    else:
        raw = as_bytes(values)
    x = rng.standard_normal((inputs, cols)).astype(np.float32)
    matrix = csrc.PackedMatrix(raw, kind, rows, cols, weights, isa=isa)
    held = matrix.unpack()
    got = matrix.multiply(csrc.QuantisedInputs(x, isa=isa), isa=isa)
    size = np.sqrt((held.astype(np.float64) ** 2).sum(axis=1)) * np.abs(x).max() + 1e-9
    if weights == "stored":
        expected, tolerance = x.astype(np.float64) @ held.T.astype(np.float64), 1e-5
    elif isa == "amx" and inputs >= 32:
        expected, tolerance = x.astype(np.float64) @ held.T.astype(np.float64), 1e-2
    else:
        expected, tolerance = quant.multiply(held, *quant.quantise_activations(x)), 1e-3
    assert np.abs((got - expected) / size).max() < tolerance


@each_isa
@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_requantising_beats_plain_rounding(isa: str, bits: int) -> None:
    rng = np.random.default_rng(bits)
    values = rng.standard_t(4, (64, 256)).astype(np.float32)
    held = csrc.PackedMatrix(as_bytes(values), "F32", 64, 256, f"int{bits}", isa=isa).unpack()
    grouped = values.reshape(-1, 32)
    scale = np.abs(grouped).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    rounded = (np.rint(grouped / scale) * scale).reshape(values.shape)
    assert ((held - values) ** 2).mean() < ((rounded - values) ** 2).mean()


@each_isa
@settings(max_examples=25)
@given(rows=st.integers(1, 5), cols=st.integers(1, 150), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_activation_codes(isa: str, rows: int, cols: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, cols)) * scale).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = 0
    inputs = csrc.QuantisedInputs(x, isa=isa)
    codes, scales = quant.quantise_activations(x)
    np.testing.assert_allclose(inputs.scales, scales, rtol=1e-6)
    assert np.abs(inputs.codes.astype(int) - codes).max() <= 1  # a tie may fall either way
    assert (inputs.codes != codes).mean() < 0.01 + 1 / codes.size


@each_isa
def test_extreme_codes_do_not_saturate(isa: str) -> None:
    """Largest codes times largest inputs of one sign: where 16-bit sums would overflow first."""
    extremes = {"Q4_0": [0xFF], "Q5_0": [0xFF], "Q8_0": [0x7F, 0x80], "Q6_K": [0xFF]}
    extremes |= {"Q2_K": [0xFF], "Q3_K": [0xFF], "IQ4_NL": [0]}
    for kind, high in ((kind, high) for kind, codes in extremes.items() for high in codes):
        cols, rows = 256, 16
        count = rows * cols // BLOCK_WEIGHTS[kind]
        blocks = np.full((count, BLOCK_BYTES[kind]), high, np.uint8)
        for at in HALVES[kind]:
            blocks[:, at : at + 2] = np.full((count, 1), 0.01, np.float16).view(np.uint8)
        weights = dequantise(blocks.reshape(-1), kind).reshape(rows, cols)
        for sign in (1, -1):
            x = np.full((1, cols), sign * 3.0, np.float32)
            got = csrc.PackedMatrix(blocks.reshape(-1), kind, rows, cols, isa=isa).multiply(
                csrc.QuantisedInputs(x, isa=isa), isa=isa
            )
            np.testing.assert_allclose(got, x @ weights.T, rtol=2e-3)


@each_isa
@settings(max_examples=30)
@given(count=st.integers(1, 300), seed=st.integers(0, 2**32 - 1))
def test_rms_norm(isa: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((2, count)).astype(np.float32)
    np.testing.assert_allclose(
        csrc.rms_norm(x, weight, 1e-6, isa=isa), decoder.rms_norm(x[None], weight, 1e-6)[0], rtol=2e-5, atol=1e-6
    )


@each_isa
@pytest.mark.parametrize("head_dim", [2, 16, 24, 64, 80, 128])
def test_rotate(isa: str, head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    x = rng.standard_normal((1, 1, head_dim)).astype(np.float32)
    position = np.array([12345], np.int32)
    angles = 12345.0 * 1e6 ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    got = csrc.rotate(x[0, 0], np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32), isa=isa)
    np.testing.assert_allclose(got, decoder.rotate(x, position, 1e6)[0, 0], atol=1e-5)


@each_isa
def test_swiglu(isa: str) -> None:
    rng = np.random.default_rng(1)
    gate = np.concatenate([rng.standard_normal(400) * 5, [-200.0, -90, -30, 0, 30, 90, 200, 1e-6] * 2]).astype(
        np.float32
    )
    up = rng.standard_normal(gate.size).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = gate.astype(np.float64) / (1 + np.exp(-gate.astype(np.float64))) * up
    np.testing.assert_allclose(csrc.swiglu(gate, up, isa=isa), expected, rtol=1e-5, atol=1e-6)


@each_isa
@settings(max_examples=30)
@given(
    rows=st.integers(1, 21),
    length=st.integers(1, 400),
    head_dim=st.sampled_from([16, 48, 64, 128]),
    page_size=st.sampled_from([16, 32, 64]),
    kv=st.sampled_from(["float32", "float16", "int8"]),
    sharpness=st.sampled_from([0.1, 1.0, 8.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_attention(
    isa: str, rows: int, length: int, head_dim: int, page_size: int, kv: str, sharpness: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    num_pages = -(-length // page_size) + 3
    table = rng.permutation(num_pages)[: -(-length // page_size)].astype(np.int32)
    k, v = rng.standard_normal((2, length, head_dim)).astype(np.float32)
    if kv == "float16":
        k, v = k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32)
    q = (rng.standard_normal((rows, head_dim)) * sharpness / np.sqrt(head_dim)).astype(np.float32)
    visible = rng.integers(1, length + 1, rows).astype(np.int32)
    cache = attention.pack_pages(k, v, table, num_pages, page_size, kv)
    got = csrc.attend(q, visible, cache, table, page_size, kv, isa=isa)
    if kv == "int8":
        k, v = attention.rounded(k), attention.rounded(v)
    np.testing.assert_allclose(got, attention.attend(q, visible, k, v), atol=2e-5)


def test_unknown_isa_names_the_choices() -> None:
    with pytest.raises(ValueError, match=r'isa "sse9" is not to be had on this CPU; choose auto or one of .*portable'):
        csrc.rms_norm(np.ones(4, np.float32), np.ones(4, np.float32), 1e-6, isa="sse9")


def test_portable_is_always_there() -> None:
    assert AVAILABLE[-1] == "portable"


@pytest.mark.parametrize(
    ("raw", "kind", "rows", "cols"),
    [
        (np.zeros(17, np.uint8), "Q4_0", 1, 32),
        (np.zeros(18, np.uint8), "Q4_0", 1, 33),
        (np.zeros(18, np.uint8), "Q9_9", 1, 32),
        (np.zeros(18, np.uint8), "Q4_0", -1, 32),
        (np.zeros(0, np.uint8), "Q4_0", 0, 32),
        (np.zeros((1, 18), np.uint8), "Q4_0", 1, 32),
        (np.zeros(36, np.uint8)[::2], "Q4_0", 1, 32),
    ],
)
def test_odd_blocks_are_refused(raw: np.ndarray, kind: str, rows: int, cols: int) -> None:
    with pytest.raises(ValueError):
        csrc.PackedMatrix(raw, kind, rows, cols)
