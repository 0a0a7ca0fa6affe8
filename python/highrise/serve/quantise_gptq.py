"""Floor 6, quantise: GPTQ, which rounds column after column and lets the columns still to come make up for the error.

Frantar et al. 2022, "GPTQ: accurate post-training quantization for generative pre-trained transformers", algorithm 1:
the error of a column, over its entry in the Cholesky factor of the inverse second moment of the inputs, is taken from
later columns along that factor's row. Here each group's line (scale and minimum) is chosen when its turn comes, among
several, by the very error that the method then leaves. Columns keep their order, so any kernel for the blocks runs the
result. Knows nothing of files, texts or layers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.serve.quantise_blocks import GROUP, Kind, Rounded, halved, most_code, round_matrix

__all__ = ["gptq"]

Floats = npt.NDArray[np.float32]

_BLOCK = 128  # columns whose errors reach the rest of the matrix in one product
_WIDE = 2048  # inputs up to which factors are computed in double precision
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)
"""Of the range of a group, about its middle, that codes span."""


def gptq(weights: Floats, moment: Floats, kind: Kind, *, damping: float = 0.01) -> Rounded:
    """Float32 (rows, columns) in codes, given the second moment of its inputs (columns, columns), any scale.

    `damping` is added to the moment's diagonal as a share of its mean. Columns whose inputs were always 0 are rounded.
    """
    rows, cols = weights.shape
    factor = _factor(moment, damping)
    left = np.array(weights.T, order="C")  # what is to be rounded, errors so far taken up; a column is one row here
    codes = np.empty((cols, rows), np.int8)
    scales, minima = np.empty((2, cols // GROUP, rows), np.float32)
    for begin in range(0, cols, _BLOCK):
        end = min(begin + _BLOCK, cols)
        errors = np.empty((end - begin, rows), np.float32)
        for first in range(begin, end, GROUP):
            group = slice(first, first + GROUP)
            found = _best_sweep(left[group], factor[group, group], kind)
            codes[group], errors[first - begin : first - begin + GROUP] = found.codes, found.errors
            scales[first // GROUP], minima[first // GROUP] = found.scale, found.minimum
            rest = slice(first + GROUP, end)
            left[rest] -= factor[group, rest].T @ found.errors
        left[end:] -= factor[begin:end, end:].T @ errors
    return Rounded(kind, np.ascontiguousarray(codes.T), np.ascontiguousarray(scales.T), np.ascontiguousarray(minima.T))


class _Sweep:
    """One group rounded along one line: what came out, and the loss of each row."""

    def __init__(self, left: Floats, factor: Floats, scale: Floats, minimum: Floats, kind: Kind) -> None:
        self.scale, self.minimum = scale, minimum
        self.codes = np.empty(left.shape, np.float32)
        self.errors = np.empty(left.shape, np.float32)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        least, most = most_code(kind)
        for column in range(len(left)):
            wanted = left[column] - factor[:column, column] @ self.errors[:column]
            code, error = self.codes[column], self.errors[column]
            np.subtract(wanted, minimum, out=code)
            code *= inverse
            np.rint(code, out=code)
            np.clip(code, least, most, out=code)
            np.multiply(code, scale, out=error)
            error += minimum
            np.subtract(wanted, error, out=error)
            error /= factor[column, column]
        self.loss: Floats = np.einsum("cr,cr->r", self.errors, self.errors)

    def take(self, other: _Sweep) -> None:
        """Keep the rows in which the other left less."""
        better = other.loss < self.loss
        for part in ("scale", "minimum", "loss"):
            setattr(self, part, np.where(better, getattr(other, part), getattr(self, part)))
        for part in ("codes", "errors"):
            np.copyto(getattr(self, part), getattr(other, part), where=better)


def _best_sweep(left: Floats, factor: Floats, kind: Kind) -> _Sweep:
    best: _Sweep | None = None
    for scale, minimum in _lines(left, factor, kind):
        found = _Sweep(left, factor, scale, minimum, kind)
        if best is None:
            best = found
        else:
            best.take(found)
    assert best is not None
    return best


def _lines(left: Floats, factor: Floats, kind: Kind) -> list[tuple[Floats, Floats]]:
    """Scales and minima to try for one group (32, rows), in half precision."""
    least, largest = left.min(axis=0), left.max(axis=0)
    lines = []
    if kind == "Q4_1":
        for share in _SHARES:
            scale = halved((largest - least) * np.float32(share / 15))
            lines.append((scale, halved((largest + least) / 2 - np.float32(7.5) * scale)))
        lines[0] = (lines[0][0], halved(least))
    else:
        middle = 8 if kind == "Q4_0" else 128
        extreme = np.where(largest > -least, largest, least)
        for share in _SHARES:
            for edge in (-middle, middle - 1):
                scale = halved(extreme * np.float32(share / edge))
                lines.append((scale, scale * np.float32(-8 if kind == "Q4_0" else 0)))
    # What later columns cannot make up for of an error in this group is its second moment given them.
    given = np.linalg.inv((factor.T @ factor).astype(np.float64)).astype(np.float32)
    fitted = round_matrix(np.ascontiguousarray(left.T), kind, "clip", given[None])
    lines.append((fitted.scales[:, 0], fitted.minima[:, 0]))
    return lines


def _factor(moment: Floats, damping: float) -> Floats:
    """Upper U with U^T U = (moment + damping)^-1, from one Cholesky factorisation of the moment turned about."""
    diagonal = moment.diagonal()
    mean = float(diagonal.mean())
    if not np.isfinite(mean):
        raise InputError("the weights or the text give inputs that are no numbers; GPTQ cannot weigh them")
    for _ in range(4):
        wide = len(moment) <= _WIDE
        turned: npt.NDArray[np.floating] = moment[::-1, ::-1].astype(np.float64 if wide else np.float32)
        turned[np.diag_indices_from(turned)] += np.where(diagonal[::-1] == 0, mean or 1.0, damping * mean)
        try:
            lower = np.linalg.cholesky(turned)
        except np.linalg.LinAlgError:
            damping *= 10
            continue
        return np.ascontiguousarray(_inverse(lower)[::-1, ::-1], dtype=np.float32)
    raise InputError(f"the second moment of {len(moment)} inputs is no positive matrix even with damping {damping:g}")


def _inverse(lower: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Of a lower triangular matrix, by halves."""
    size = len(lower)
    if size <= 64:
        inverse: npt.NDArray[np.floating] = np.tril(np.linalg.inv(lower))
        return inverse
    half = size // 2
    result = np.zeros_like(lower)
    result[:half, :half], result[half:, half:] = _inverse(lower[:half, :half]), _inverse(lower[half:, half:])
    result[half:, :half] = -(result[half:, half:] @ lower[half:, :half]) @ result[:half, :half]
    return result
