"""The slow and obvious versions of the CUDA kernels, in float64: 16-bit formats, int4 packing, product, attention.

Shared by the tests that run the kernels on a CPU (tests/cuda_on_cpu) and on a GPU (tests/gpu).
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Array = NDArray[Any]

GROUP = 32


def to_bits(values: Array, *, bfloat: bool) -> NDArray[np.uint16]:
    """Round to float16 or bfloat16 (nearest, ties to even); the result is the bits."""
    if not bfloat:
        with np.errstate(over="ignore"):  # beyond 65504 is infinity
            return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bits(bits: Array, *, bfloat: bool) -> Floats:
    """The numbers that 16-bit patterns stand for."""
    if not bfloat:
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantise(weight: Floats) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.float16]]:
    """Packed [N, K / 2], scale and minimum [N, K / 32] of a weight [N, K]; see csrc/cuda/kernels.h."""
    n, k = weight.shape
    groups = weight.reshape(n, k // GROUP, GROUP)
    minimum = groups.min(axis=2).astype(np.float16)
    scale = ((groups.max(axis=2) - minimum) / 15).astype(np.float16)
    step = np.where(scale == 0, 1, scale).astype(np.float32)[..., None]
    q = np.clip(np.rint((groups - minimum[..., None].astype(np.float32)) / step), 0, 15).astype(np.uint8)
    packed = q[..., :16] | (q[..., 16:] << 4)
    return packed.reshape(n, k // 2), scale, minimum


def dequantise(packed: Array, scale: Array, minimum: Array) -> NDArray[np.float64]:
    """The weights [N, K] that the packed form stands for."""
    n, groups = scale.shape
    nibbles = packed.reshape(n, groups, GROUP // 2)
    q = np.concatenate([nibbles & 15, nibbles >> 4], axis=2).astype(np.float64)
    return (q * scale[..., None].astype(np.float64) + minimum[..., None].astype(np.float64)).reshape(n, groups * GROUP)


def gemm(x: Array, packed: Array, scale: Array, minimum: Array) -> NDArray[np.float64]:
    """x [M, K] times the transposed weights, [M, N]."""
    return x.astype(np.float64) @ dequantise(packed, scale, minimum).T


class AttentionCase(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of one paged attention, 16-bit ones as bits."""

    query: Array
    """[B, H, D]"""
    keys: Array
    """[P, G, S, D]"""
    values: Array
    pages: Array
    """[B, max_pages] int32"""
    lengths: Array
    """[B] int32"""
    bfloat: bool

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.query.shape[2]) ** -0.5


def make_attention(
    *, lengths: list[int], heads: int, kv_heads: int, head_dim: int, page_size: int, bfloat: bool, seed: int
) -> AttentionCase:
    """Random inputs: pages scattered, unused pages and slots full of NaN, unused table entries far outside."""
    generator = np.random.default_rng(seed)
    needed = [-(-length // page_size) for length in lengths]
    max_pages = max(1, *needed) + 1
    total = sum(needed) + 3
    order = generator.permutation(total)
    keys = np.full((total, kv_heads, page_size, head_dim), np.nan, dtype=np.float32)
    values = keys.copy()
    table = np.full((len(lengths), max_pages), 2**30, dtype=np.int32)
    taken = 0
    for sequence, length in enumerate(lengths):
        for index in range(needed[sequence]):
            page = int(order[taken])
            taken += 1
            table[sequence, index] = page
            slots = min(page_size, length - index * page_size)
            keys[page, :, :slots] = generator.standard_normal((kv_heads, slots, head_dim)) * 2
            values[page, :, :slots] = generator.standard_normal((kv_heads, slots, head_dim))
    query = generator.standard_normal((len(lengths), heads, head_dim)).astype(np.float32) * 2
    return AttentionCase(
        query=to_bits(query, bfloat=bfloat),
        keys=to_bits(keys, bfloat=bfloat),
        values=to_bits(values, bfloat=bfloat),
        pages=table,
        lengths=np.array(lengths, dtype=np.int32),
        bfloat=bfloat,
    )


def attention(case: AttentionCase) -> NDArray[np.float64]:
    """Softmax attention of one query token a sequence, [B, H, D]; zeros for a sequence of length 0."""
    query = from_bits(case.query, bfloat=case.bfloat).astype(np.float64)
    keys = from_bits(case.keys, bfloat=case.bfloat).astype(np.float64)
    values = from_bits(case.values, bfloat=case.bfloat).astype(np.float64)
    out = np.zeros_like(query)
    page_size, group = keys.shape[2], query.shape[1] // keys.shape[1]
    for sequence, length in enumerate(case.lengths):
        if length == 0:
            continue
        tokens = np.arange(length)
        pages = case.pages[sequence, tokens // page_size]
        for head in range(query.shape[1]):
            k = keys[pages, head // group, tokens % page_size]
            v = values[pages, head // group, tokens % page_size]
            scores = k @ query[sequence, head] * case.scale
            weights = np.exp(scores - scores.max())
            out[sequence, head] = weights @ v / weights.sum()
    return out


def relative_error(out: Array, reference: Array) -> float:
    """Norm of the difference over the norm of the reference; NaN is infinitely wrong."""
    difference = float(np.linalg.norm(out.astype(np.float64) - reference))
    norm = float(np.linalg.norm(reference))
    if not np.isfinite(difference):
        return float("inf")
    return difference / norm if norm else difference
