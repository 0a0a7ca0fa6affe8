"""The kernels that keep llama.cpp's order: products of each block type with llama.cpp's own bits, the rest near.

`python -m tests.serve.test_llama_order LIBGGML_CPU` writes the golden file anew: it calls the library of a llama.cpp
built by scripts/build_llama.sh (`.cache/llama.cpp/build/bin/libggml-cpu.so`). That whole models give the same tokens is
asserted by tests/serve/test_llama_parity.py.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from highrise.core.blocks import dequantise
from highrise.core.native import csrc
from tests.reference import attention, llama_order
from tests.serve.test_decoder import PLAIN, QWEN, make_decoder, random_weights, run_whole
from tests.serve.test_kernels import BLOCK_BYTES, BLOCK_WEIGHTS, HALVES

GOLDEN = Path(__file__).parents[1] / "golden" / "llama_order.json"
KINDS = {"Q4_1": (3, 9), "Q5_0": (6, 8), "Q8_0": (8, 8), "Q4_K": (12, 15), "Q6_K": (14, 15)}
"""Block types with ggml's numbers of them and of what inputs are rounded to beside them."""
ROWS, COLS = 16, 768

AVAILABLE = csrc.available_orders()
each_order = pytest.mark.parametrize(
    "order",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in AVAILABLE, reason=f"this CPU has no {name} kernels"))
        for name in ("llama-avx512", "llama-avx2")
    ],
)


def hashed(name: str, count: int) -> np.ndarray:
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(count), np.uint8)


def blocks_of(kind: str) -> np.ndarray:
    """ROWS x COLS weights that depend on no random generator, with scales as a trained network has them."""
    count = ROWS * COLS // BLOCK_WEIGHTS[kind]
    blocks = hashed(kind, count * BLOCK_BYTES[kind]).reshape(count, -1).copy()
    for at in HALVES[kind]:
        scales = (blocks[:, at].astype(np.float32) - 128) / np.float32(16384)
        blocks[:, at : at + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    return blocks.reshape(-1)


def inputs_of(kind: str) -> np.ndarray:
    whole = hashed(f"inputs {kind}", 4 * COLS).view("<u4")
    return (whole >> 8).astype(np.float32) / np.float32(1 << 22) - np.float32(2)


def product(kind: str, order: str) -> np.ndarray:
    matrix = csrc.PackedMatrix(blocks_of(kind), kind, ROWS, COLS, isa=order)
    return matrix.multiply(csrc.QuantisedInputs(inputs_of(kind)[None], isa=order), isa=order)[0]


@each_order
@pytest.mark.parametrize("kind", list(KINDS))
def test_products_have_the_bits_of_llama_cpp(order: str, kind: str) -> None:
    assert [float(x).hex() for x in product(kind, order)] == json.loads(GOLDEN.read_text())[kind]


@each_order
@pytest.mark.parametrize("kind", list(KINDS))
def test_products_are_near_the_reference(order: str, kind: str) -> None:
    raw = blocks_of(kind)
    weights, minima = dequantise(raw, kind).reshape(ROWS, COLS), None
    if kind == "Q4_1":
        minima = raw.reshape(ROWS, -1, BLOCK_BYTES[kind])[:, :, 2:4].copy().view(np.float16)[:, :, 0]
    expected = llama_order.multiply(weights, minima, inputs_of(kind), kind)
    size = np.abs(weights).sum(axis=1) * 2
    assert (np.abs(product(kind, order) - expected) / size).max() < 1e-6


@each_order
def test_blocks_are_kept_as_they_are(order: str) -> None:
    for kind in KINDS:
        matrix = csrc.PackedMatrix(blocks_of(kind), kind, ROWS, COLS, isa=order)
        assert np.array_equal(matrix.unpack(), dequantise(blocks_of(kind), kind).reshape(ROWS, COLS))
        assert matrix.nbytes == blocks_of(kind).size


@each_order
@pytest.mark.parametrize(("head_dim", "length"), [(16, 5), (64, 100), (80, 33), (128, 17)])
def test_attention_is_near_the_reference(order: str, head_dim: int, length: int) -> None:
    rng = np.random.default_rng([head_dim, length])
    k, v = rng.standard_normal((2, length, head_dim)).astype(np.float16).astype(np.float32)
    q = rng.standard_normal((3, head_dim)).astype(np.float32)
    table = rng.permutation(9)[: -(-length // 16)].astype(np.int32)
    visible = np.array([1, length // 2 + 1, length], np.int32)
    cache = attention.pack_pages(k, v, table, 9, 16, "float16")
    got = csrc.attend(q, visible, cache, table, 16, "float16", isa=order)
    for row, seen in enumerate(visible):
        # half a unit of half precision in every step may fall on either side
        np.testing.assert_allclose(got[row], llama_order.attend(q[row], k[:seen], v[:seen], 1.0), atol=4e-3)


@each_order
@pytest.mark.parametrize("shape", [PLAIN, QWEN], ids=["plain", "qwen"])
def test_a_decoder_is_near_the_other_kernels(order: str, shape) -> None:
    weights = random_weights(shape)
    tokens = [(5 * i + 1) % shape.vocab_size for i in range(40)]
    for kv in ("float16", "float32"):
        expected = run_whole(make_decoder(shape, weights, isa="portable", kv=kv), tokens)
        for interleaved in (False, True):
            decoder = make_decoder(shape, weights, isa=order, kv=kv, interleaved=interleaved)
            np.testing.assert_allclose(run_whole(decoder, tokens), expected, atol=0.02)


def test_tiles_and_blocks_are_not_mixed_up() -> None:
    for order in AVAILABLE:
        matrix = csrc.PackedMatrix(blocks_of("Q8_0"), "Q8_0", ROWS, COLS, isa=order)
        with pytest.raises(ValueError, match=f"was packed for {order} and cannot be multiplied with portable"):
            matrix.multiply(csrc.QuantisedInputs(inputs_of("Q8_0")[None], isa="portable"), isa="portable")


class _Traits(ctypes.Structure):
    """The head of ggml_type_traits_cpu: how to round a row of inputs, and the product of two rows."""

    _fields_ = [("from_float", ctypes.c_void_p), ("vec_dot", ctypes.c_void_p)]


def llama_product(library: ctypes.CDLL, kind: str) -> np.ndarray:
    weight_type, input_type = KINDS[kind]
    library.ggml_get_type_traits_cpu.restype = ctypes.POINTER(_Traits)
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    dot = ctypes.CFUNCTYPE(None, ctypes.c_int, pointer, size, pointer, size, pointer, size, ctypes.c_int)(
        library.ggml_get_type_traits_cpu(weight_type).contents.vec_dot
    )
    rounding = ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int64)(
        library.ggml_get_type_traits_cpu(input_type).contents.from_float
    )
    x, blocks = inputs_of(kind), blocks_of(kind).reshape(ROWS, -1)
    rounded, out = np.zeros(2 * COLS, np.uint8), np.zeros(ROWS, np.float32)
    rounding(x.ctypes.data, rounded.ctypes.data, COLS)
    for row in range(ROWS):
        dot(COLS, out[row:].ctypes.data, 0, blocks[row:].ctypes.data, 0, rounded.ctypes.data, 0, 1)
    return out


if __name__ == "__main__":
    library = ctypes.CDLL(sys.argv[1])
    library.ggml_cpu_init()
    golden = {kind: [float(x).hex() for x in llama_product(library, kind)] for kind in KINDS}
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
