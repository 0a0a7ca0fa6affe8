"""Floor 6, quantise: AWQ's scales, which make the columns that meet large inputs finer.

Lin et al. 2023, "AWQ: activation-aware weight quantization", section 3.2: weights are multiplied by s, column by
column, and inputs divided by it, with s the mean size of the inputs to some power; of several powers that is taken
which leaves the outputs nearest. The division goes into what comes before (a norm, or the rows of a matrix), so nothing
is computed more. Where heads share keys and values, their columns share a scale, so that it fits into the values' rows.
Knows nothing of files, texts or layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from highrise.serve.quantise_blocks import Kind, round_matrix

__all__ = ["activation_scales"]

Floats = npt.NDArray[np.float32]

_POWERS = 20
_SAMPLE = 512


def activation_scales(
    inputs: Floats, matrices: Sequence[Floats], columns: npt.NDArray[np.int64], kinds: Sequence[Kind]
) -> Floats:
    """What to multiply the columns of `matrices` (rows, columns) with, float32 (columns,), given (tokens, columns).

    `columns` names an element of the source for each column; columns of one element get the same scale.
    """
    sample = inputs[:: max(1, len(inputs) // _SAMPLE)]
    size = np.bincount(columns, weights=np.abs(inputs).mean(axis=0)) / np.maximum(np.bincount(columns), 1)
    best, best_error = np.ones(inputs.shape[1], np.float32), np.inf
    for power in range(_POWERS):
        scale = np.maximum(size ** (power / _POWERS), 1e-4)
        scale /= np.sqrt(scale.max() * scale.min())
        wide = scale[columns].astype(np.float32)
        error = 0.0
        for matrix, kind in zip(matrices, kinds, strict=True):
            scaled = matrix * wide
            off = round_matrix(scaled, kind, "round").values() - scaled
            error += float(np.square((sample / wide) @ off.T).sum())
        if error < best_error:
            best, best_error = wide, error
    return best
