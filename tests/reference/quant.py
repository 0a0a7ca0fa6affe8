"""Quantisation, slow and obvious: int8 activations in groups of 32, and products of them with dequantised weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUP = 32

Array = NDArray[np.float32]


def quantise_activations(x_TK: Array) -> tuple[NDArray[np.int8], Array]:
    """Codes (T, K rounded up to 32) and one scale for each group of 32: the largest magnitude divided by 127."""
    rows, cols = x_TK.shape
    groups = -(-cols // GROUP)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :cols] = x_TK
    grouped = padded.reshape(rows, groups, GROUP)
    largest = np.abs(grouped).max(axis=-1)
    with np.errstate(divide="ignore"):
        inverse = np.where(largest > 0, np.float32(127) / largest, np.float32(0)).astype(np.float32)
    codes = np.rint(grouped * inverse[..., None]).astype(np.int8)
    return codes.reshape(rows, -1), (largest / np.float32(127)).astype(np.float32)


def multiply(weights_RK: Array, codes_TK: NDArray[np.int8], scales_TG: Array) -> NDArray[np.float64]:
    """Inputs (as codes and scales) times weights, in float64."""
    inputs = codes_TK.astype(np.float64) * np.repeat(scales_TG.astype(np.float64), GROUP, axis=1)
    return inputs[:, : weights_RK.shape[1]] @ weights_RK.astype(np.float64).T
