"""GPTQ, AWQ's scales and HQQ, slow and obvious: loops over columns, powers and groups, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def gptq_wanted(weights_RC: Array, moment_CC: Array, held_RC: Array, damping: float = 0.01) -> Array:
    """Frantar et al. 2022 by its definition: what each column should be when its turn comes, errors so far made up for.

    `held_RC` is what the columns were rounded to; the inverse is taken anew for the columns that are left.
    """
    left = weights_RC.astype(np.float64).copy()
    moment = moment_CC.astype(np.float64) + np.eye(len(moment_CC)) * damping * np.mean(np.diag(moment_CC))
    wanted = np.zeros(left.shape)
    for column in range(left.shape[1]):
        inverse = np.linalg.inv(moment[column:, column:])
        wanted[:, column] = left[:, column]
        error = (left[:, column] - held_RC[:, column]) / inverse[0, 0]
        left[:, column:] -= np.outer(error, inverse[0])
    return wanted


def nearest(values: Array, scale: Array, minimum: Array) -> Array:
    """Codes 0 to 15 nearest to values."""
    safe = np.where(scale == 0, 1, scale)
    return np.where(scale == 0, 0, np.clip(np.rint((values - minimum) / safe), 0, 15))


def rounded(weights_RC: Array) -> Array:
    """Each 32 weights of a row on 16 even steps from the least to the largest, ends in half precision as Q4_1 has."""
    out = np.empty(weights_RC.shape)
    for row in range(weights_RC.shape[0]):
        for first in range(0, weights_RC.shape[1], 32):
            x = weights_RC[row, first : first + 32]
            minimum = float(np.float16(x.min()))
            scale = float(np.float16((x.max() - minimum) / 15))
            out[row, first : first + 32] = nearest(x, np.full(32, scale), np.full(32, minimum)) * scale + minimum
    return out


def awq_power(inputs_TC: Array, matrices: list[Array], powers: int = 20) -> tuple[float, Array]:
    """The power of the mean size of inputs that leaves outputs nearest (Lin et al. 2023), and its scales."""
    size = np.abs(inputs_TC).mean(axis=0)
    found = []
    for index in range(powers):
        scale = np.maximum(size ** (index / powers), 1e-4)
        scale = scale / np.sqrt(scale.max() * scale.min())
        error = 0.0
        for matrix in matrices:
            held = rounded(matrix * scale) / scale
            error += float(((inputs_TC @ (held - matrix).T) ** 2).sum())
        found.append((error, index / powers, scale))
    _, power, scale = min(found, key=lambda one: one[0])
    return power, scale


def hqq_group(x: Array, scale: float, *, power: float = 0.7, beta: float = 10.0, rounds: int = 20) -> list[float]:
    """The minima that half-quadratic quantisation goes through for one group of 32, the first from the least weight."""
    zero = -x.min() / scale
    minima = []
    for _ in range(rounds):
        minima.append(-zero * scale)
        codes = np.clip(np.rint(x / scale + zero), 0, 15)
        off = x - (codes - zero) * scale
        outlier = np.array(
            [np.sign(e) * max(abs(e) - abs(e) ** (power - 1) / beta, 0.0) if e != 0 else 0.0 for e in off]
        )
        zero = float(np.mean(codes - (x - outlier) / scale))
        beta *= 1.01
    return minima
