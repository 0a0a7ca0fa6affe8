"""Floor 0, blocks: the quantised block formats of GGML, as a table, and each one turned into float32 by numpy.

This is the specification of the formats; the kernels of floor 6 are tested against it. Knows nothing of files.
Layouts: ggml's `ggml-common.h` and `ggml-quants.c`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["BLOCKS", "GGML_TYPES", "Block", "dequantise"]

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Block(msgspec.Struct, frozen=True):
    """How many weights a block holds and in how many bytes."""

    weights: int
    num_bytes: int


BLOCKS: dict[str, Block] = {
    "F32": Block(1, 4),
    "F16": Block(1, 2),
    "BF16": Block(1, 2),
    "Q4_0": Block(32, 18),
    "Q4_1": Block(32, 20),
    "Q5_0": Block(32, 22),
    "Q5_1": Block(32, 24),
    "Q8_0": Block(32, 34),
    "Q2_K": Block(256, 84),
    "Q3_K": Block(256, 110),
    "Q4_K": Block(256, 144),
    "Q5_K": Block(256, 176),
    "Q6_K": Block(256, 210),
    "IQ4_NL": Block(32, 18),
    "IQ4_XS": Block(256, 136),
}

GGML_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    10: "Q2_K",
    11: "Q3_K",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    20: "IQ4_NL",
    23: "IQ4_XS",
    30: "BF16",
}


def _half(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of every block, shape (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16).astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low nibbles of all bytes, then the high ones: (blocks, n) -> (blocks, 2n)."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(blocks: Bytes, at: int) -> Bytes:
    """The 32 high bits of a Q5 block as 0 or 16."""
    bits = np.unpackbits(np.ascontiguousarray(blocks[:, at : at + 4]), axis=1, bitorder="little")
    return bits << np.uint8(4)


def _f32(blocks: Bytes) -> Floats:
    return blocks.view(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return blocks.view(np.float16).astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (blocks.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * ((_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).astype(np.float32) - 16)


def _q5_1(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)) + _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


def _k_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The eight 6-bit scales and minima of Q4_K and Q5_K from their 12 bytes."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | ((low >> 6) << 4)], axis=1)
    minima = np.concatenate([middle & 63, (high >> 4) | ((middle >> 6) << 4)], axis=1)
    return scales, minima


def _k_affine(blocks: Bytes, quants: npt.NDArray[np.integer]) -> Floats:
    """Scale and minimum of each of the eight sub-blocks applied to `quants` of shape (blocks, 8, 32)."""
    scales, minima = _k_scales(blocks[:, 4:16])
    scale = (_half(blocks, 0) * scales)[:, :, None]
    minimum = (_half(blocks, 2) * minima)[:, :, None]
    values: Floats = scale * quants - minimum
    return values.reshape(len(blocks), 256)


def _k_nibbles(packed: Bytes) -> Bytes:
    """Four groups of 32 bytes, each the low then the high nibbles of two sub-blocks: -> (blocks, 8, 32)."""
    groups = packed.reshape(-1, 4, 32)
    return np.stack([groups & 15, groups >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> Floats:
    return _k_affine(blocks, _k_nibbles(blocks[:, 16:144]))


def _q5_k(blocks: Bytes) -> Floats:
    bits = (blocks[:, 16:48][:, None, :] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    return _k_affine(blocks, _k_nibbles(blocks[:, 48:176]) | (bits << np.uint8(4)))


def _q6_k(blocks: Bytes) -> Floats:
    low = blocks[:, 0:128].reshape(-1, 2, 2, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=2)
    pairs = (high >> (2 * np.arange(4, dtype=np.uint8))[None, None, :, None]) & 3
    quants = (nibbles | (pairs << np.uint8(4))).astype(np.int8) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    values: Floats = (_half(blocks, 208) * scales)[:, :, None] * quants.reshape(-1, 16, 16)
    return values.reshape(len(blocks), 256)


def _pairs(packed: Bytes) -> Bytes:
    """Two halves of 32 bytes, each four sub-blocks of two bits in all its bytes: (blocks, 64) -> (blocks, 16, 16)."""
    halves = packed.reshape(-1, 2, 1, 32) >> (2 * np.arange(4, dtype=np.uint8))[None, None, :, None]
    codes: Bytes = (halves & 3).astype(np.uint8).reshape(-1, 16, 16)
    return codes


def _q2_k(blocks: Bytes) -> Floats:
    scales = blocks[:, 0:16]
    scale = (_half(blocks, 80) * (scales & 15))[:, :, None]
    minimum = (_half(blocks, 82) * (scales >> 4))[:, :, None]
    values: Floats = np.asarray(scale * _pairs(blocks[:, 16:80]) - minimum, np.float32)
    return values.reshape(len(blocks), 256)


def _q3_k(blocks: Bytes) -> Floats:
    low, high = _nibbles(blocks[:, 96:104]), blocks[:, 104:108]
    pairs = (high[:, None, :] >> (2 * np.arange(4, dtype=np.uint8))[None, :, None]) & 3
    scales = (low | (pairs.reshape(-1, 16) << np.uint8(4))).astype(np.int8) - 32
    third = (blocks[:, None, 0:32] >> np.arange(8, dtype=np.uint8)[None, :, None]) & 1
    quants = (_pairs(blocks[:, 32:96]) | (third.reshape(-1, 16, 16) << np.uint8(2))).astype(np.int8) - 4
    values: Floats = (_half(blocks, 108) * scales)[:, :, None] * quants
    return values.reshape(len(blocks), 256)


# What the sixteen codes of IQ4_NL and IQ4_XS stand for: closer together near zero, where most weights are.
_UNEVEN = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32)


def _iq4_nl(blocks: Bytes) -> Floats:
    return _half(blocks, 0) * _UNEVEN[_nibbles(blocks[:, 2:])]


def _iq4_xs(blocks: Bytes) -> Floats:
    index = np.arange(8, dtype=np.uint8)
    low = (blocks[:, 4:8][:, index // 2] >> (4 * (index % 2))) & 15
    high = (blocks[:, 2:4][:, index // 4] >> (2 * (index % 4))) & 3
    scales = (low | (high << np.uint8(4))).astype(np.int8) - 32
    values = _UNEVEN[_nibbles(blocks[:, 8:].reshape(-1, 16))].reshape(-1, 8, 32)
    return ((_half(blocks, 0) * scales)[:, :, None] * values).reshape(len(blocks), 256)


_READERS: dict[str, Callable[[Bytes], Floats]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}


def dequantise(raw: Bytes, kind: str) -> Floats:
    """Blocks of type `kind` (a contiguous uint8 array) as a flat float32 array."""
    block = BLOCKS[kind]
    if block.weights == 1:
        return _READERS[kind](np.ascontiguousarray(raw)).reshape(-1)
    blocks = raw.reshape(-1, block.num_bytes)
    values = np.empty((len(blocks), block.weights), dtype=np.float32)
    for begin in range(0, len(blocks), 1 << 16):
        values[begin : begin + (1 << 16)] = _READERS[kind](blocks[begin : begin + (1 << 16)])
    return values.reshape(-1)
