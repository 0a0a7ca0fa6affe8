"""Products as llama.cpp rounds them, slow and obvious: inputs in 8 bits as beside each block type, sums in float64.

What it leaves out is the order of the float32 sums; tests/golden/llama_order.json, made by llama.cpp, holds that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["attend", "multiply", "round_inputs"]

Array = NDArray[np.float32]


def through_half(x: Array) -> Array:
    """Rounded to half precision and back."""
    return x.astype(np.float16).astype(np.float32)


def round_inputs(x_K: Array, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs as a product with blocks of `kind` sees them, and their sum in each group of 32 as Q4_1 sees it."""
    size = 256 if kind.endswith("_K") else 32
    rounded, sums = [], []
    for group in x_K.reshape(-1, size):
        extreme = group[np.abs(group).argmax()]
        if kind.endswith("_K"):
            inverse = np.float32(-127) / extreme if extreme else np.float32(0)
            scale = np.float32(1) / inverse if extreme else np.float32(0)
            codes = np.minimum(np.rint(inverse * group), 127)
        else:
            full = np.abs(extreme) / np.float32(127)
            codes = np.rint(group * (np.float32(127) / np.abs(extreme) if extreme else np.float32(0)))
            scale = through_half(full)
            sums.append(through_half(full * codes.sum(dtype=np.float32)))
        rounded.append(codes.astype(np.float64) * np.float64(scale))
    return np.concatenate(rounded), np.array(sums, np.float64)


def multiply(weights_RK: Array, minima_RG: Array | None, x_K: Array, kind: str) -> NDArray[np.float64]:
    """Rows times one input; `minima_RG` (a minimum for each row and group of 32) belongs to Q4_1."""
    rounded, sums = round_inputs(x_K, kind)
    weights = weights_RK.astype(np.float64)
    if minima_RG is None:
        return weights @ rounded
    minima = minima_RG.astype(np.float64)
    return (weights - np.repeat(minima, 32, axis=1)) @ rounded + minima @ sums


def attend(q_D: Array, k_TD: Array, v_TD: Array, scale: float) -> Array:
    """One query over all keys, in turn: queries, keys, values and the growing output are held in half precision."""
    query, out = through_half(q_D), np.zeros(v_TD.shape[1], np.float32)
    highest, total = np.float32(-np.inf), np.float32(0)
    for key, value in zip(k_TD, v_TD, strict=True):
        score = (key @ query) * np.float32(scale)
        before, weight = np.float32(1), np.float32(1)
        if score > highest:
            before, highest = np.exp(highest - score), score
            out = through_half(out * before)
        else:
            weight = np.exp(score - highest)
        out = through_half(value * weight + out)
        total = total * before + weight
    return out / total
