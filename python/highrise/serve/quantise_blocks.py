"""Floor 6, quantise: a matrix as codes in groups of 32 columns, and as GGML blocks (Q4_0, Q4_1 or Q8_0).

"round" makes the extremes of a group codes. "clip" tries narrower ranges too, each with the line that fits its codes
best, and keeps the least error: squared, or, where second moments of the inputs are known, that of the outputs (the
clipping of AWQ, Lin et al. 2023, section 3.2). "hqq" moves the minimum until few weights are far off (half-quadratic
quantisation, Badri and Shaji 2023). Knows nothing of files, texts or layers.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["GROUP", "Kind", "Moments", "Rounded", "Rounding", "halved", "most_code", "round_matrix"]

GROUP = 32
Kind = Literal["Q4_0", "Q4_1", "Q8_0"]
Rounding = Literal["round", "clip", "hqq"]
Floats = npt.NDArray[np.float32]
Moments = npt.NDArray[np.float32]
"""Second moments of the inputs of each group of columns among themselves: (groups, 32, 32)."""

_ROWS = 1 << 20  # weights that are rounded at a time
_SHARES = np.linspace(0.8, 1.04, 13, dtype=np.float32)
_DAMPING = 0.01


class Rounded(msgspec.Struct, frozen=True):
    """A matrix: weight = scale * code + minimum, with one of each a row and group, in half precision."""

    kind: Kind
    codes: npt.NDArray[np.int8]
    """(rows, columns); 0 to 15, or -128 to 127 for Q8_0."""
    scales: Floats
    """(rows, groups)."""
    minima: Floats
    """(rows, groups); 0 for Q8_0, -8 * scale for Q4_0."""

    def values(self) -> Floats:
        """The matrix that the codes stand for, float32 (rows, columns)."""
        grouped = self.codes.reshape(*self.scales.shape, GROUP) * self.scales[..., None] + self.minima[..., None]
        values: Floats = grouped.reshape(self.codes.shape)
        return values

    def with_rows_divided(self, by: Floats) -> Rounded:
        """The same codes with each row divided by `by` (rows,), to half precision."""
        scales = halved(self.scales / by[:, None])
        minima = scales * np.float32(-8) if self.kind == "Q4_0" else halved(self.minima / by[:, None])
        return Rounded(self.kind, self.codes, scales, minima)

    def blocks(self) -> npt.NDArray[np.uint8]:
        """GGML blocks, uint8 (rows, bytes of a row)."""
        codes = self.codes.reshape(-1, GROUP)
        parts = [_half_bytes(self.scales)]
        if self.kind == "Q8_0":
            parts.append(codes.view(np.uint8))
        else:
            if self.kind == "Q4_1":
                parts.append(_half_bytes(self.minima))
            small = codes.view(np.uint8)
            parts.append(small[:, :16] | (small[:, 16:] << np.uint8(4)))
        return np.concatenate(parts, axis=1).reshape(len(self.codes), -1)


def halved(values: Floats) -> Floats:
    """To half precision and back."""
    return values.astype(np.float16).astype(np.float32)


def most_code(kind: Kind) -> tuple[int, int]:
    """Least and largest code."""
    return (-128, 127) if kind == "Q8_0" else (0, 15)


def round_matrix(values: Floats, kind: Kind, rounding: Rounding = "clip", moments: Moments | None = None) -> Rounded:
    """Float32 (rows, columns), columns a multiple of 32, in codes. `moments` are for "clip".

    Q4_0 and Q8_0 have no minimum of their own to move, so with them "hqq" is "clip".
    """
    rows, cols = values.shape
    grouped = values.reshape(rows, cols // GROUP, GROUP)
    codes = np.empty((rows, cols), np.int8)
    scales, minima = np.empty((2, rows, cols // GROUP), np.float32)
    step = max(1, _ROWS // cols)
    for begin in range(0, rows, step):
        part = slice(begin, begin + step)
        if kind == "Q4_1" and rounding == "hqq":
            found = _half_quadratic(grouped[part])
        else:
            found = _search(grouped[part], kind, _SHARES if rounding == "clip" else _SHARES[:0], moments)
        codes[part], scales[part], minima[part] = found[0].reshape(-1, cols), found[1], found[2]
    return Rounded(kind, codes, scales, minima)


def _half_bytes(values: Floats) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values.reshape(-1, 1).astype(np.float16)).view(np.uint8)


def _coded(x: Floats, scale: Floats, minimum: Floats, kind: Kind) -> Floats:
    """The nearest codes of x (..., 32) on the line of each group."""
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    codes: Floats = (x - minimum[..., None]) * inverse[..., None]
    np.rint(codes, out=codes)
    np.clip(codes, *most_code(kind), out=codes)
    return codes


def _minimum_of(scale: Floats, kind: Kind) -> Floats:
    """The minimum that comes with a scale where it is not free."""
    return scale * np.float32(-8 if kind == "Q4_0" else 0)


def _search(x: Floats, kind: Kind, shares: Floats, moments: Moments | None) -> tuple[Floats, Floats, Floats]:
    """Codes, scales and minima of x (rows, groups, 32): the extremes as codes, or the best of some narrower ranges."""
    least, largest = x.min(axis=-1), x.max(axis=-1)
    extreme = np.where(largest > -least, largest, least)
    if kind == "Q4_1":
        minimum = halved(least)
        scale = halved((largest - minimum) / 15)
    else:
        scale = halved(extreme / np.float32(most_code("Q8_0")[0] if kind == "Q8_0" else -8))
        minimum = _minimum_of(scale, kind)
    best = [_coded(x, scale, minimum, kind), scale, minimum]
    if not len(shares):
        return best[0], best[1], best[2]
    weight = None
    if moments is not None:
        weight = np.einsum("gii->gi", moments)
        weight = weight + np.float32(_DAMPING) * weight.mean()
    best_error = _error(best[0], scale, minimum, x, moments)
    for share in shares:
        if kind == "Q4_1":
            scale = (largest - least) * share / 15
            minimum = (largest + least) / 2 - np.float32(7.5) * scale
        else:
            wanted = 8 + (share - np.float32(0.92)) * 8 if kind == "Q4_0" else 128 + (share - np.float32(0.92)) * 0.8
            scale = extreme / -wanted
            minimum = _minimum_of(scale, kind)
        codes = _coded(x, scale, minimum, kind)
        scale, minimum = _fitted(codes, x, weight, kind)
        error = _error(codes, scale, minimum, x, moments)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best[0] = np.where(better[..., None], codes, best[0])
        best[1], best[2] = np.where(better, scale, best[1]), np.where(better, minimum, best[2])
    return best[0], best[1], best[2]


def _fitted(codes: Floats, x: Floats, weight: Floats | None, kind: Kind) -> tuple[Floats, Floats]:
    """Scale and minimum with the least squared error, weighted by column, for given codes; in half precision."""
    shifted = codes - np.float32(8) if kind == "Q4_0" else codes
    weighted = shifted if weight is None else shifted * weight
    square, cross = np.einsum("rgi,rgi->rg", weighted, shifted), np.einsum("rgi,rgi->rg", weighted, x)
    if kind != "Q4_1":
        scale = halved(np.divide(cross, square, out=np.zeros_like(square), where=square > 0))
        return scale, _minimum_of(scale, kind)
    mass = np.float32(GROUP) if weight is None else weight.sum(axis=-1)
    count = weighted.sum(axis=-1)
    total = x.sum(axis=-1) if weight is None else np.einsum("rgi,gi->rg", x, weight)
    spread = mass * square - count * count
    scale = np.divide(mass * cross - count * total, spread, out=np.zeros_like(spread), where=spread > 0)
    return halved(scale), halved((total - scale * count) / mass)


def _error(codes: Floats, scale: Floats, minimum: Floats, x: Floats, moments: Moments | None) -> Floats:
    """Squared error of each group's weights, or of what it adds to the outputs over the inputs of `moments`."""
    off = codes * scale[..., None] + minimum[..., None] - x
    seen = off if moments is None else np.matmul(off.swapaxes(0, 1), moments).swapaxes(0, 1)
    error: Floats = np.einsum("rgi,rgi->rg", off, seen)
    return error


def _half_quadratic(
    x: Floats, *, power: float = 0.7, beta: float = 10.0, growth: float = 1.01, most: int = 20
) -> tuple[Floats, Floats, Floats]:
    """Codes, scales and minima of x (rows, groups, 32); the defaults are those of the authors' package."""
    least, largest = x.min(axis=-1), x.max(axis=-1)
    scale = halved((largest - least) / 15)
    safe = np.where(scale > 0, scale, np.float32(1))[..., None]
    place = x / safe
    zero = -least[..., None] / safe
    best_zero, best_error = zero, np.inf
    for _ in range(most):
        codes = np.clip(np.rint(place + zero), 0, 15)
        off = x - (codes - zero) * safe
        error = float(np.abs(off).mean())
        if error >= best_error:
            break
        best_zero, best_error = zero, error
        size = np.abs(off)
        shrunk = size - np.power(size, power - 1, out=np.full_like(size, np.inf), where=size > 0) / np.float32(beta)
        outlier = np.sign(off) * np.maximum(shrunk, 0)
        zero = (codes - (x - outlier) / safe).mean(axis=-1, keepdims=True)
        beta *= growth
    minimum = halved((-best_zero * safe)[..., 0])
    return _coded(x, scale, minimum, "Q4_1"), scale, minimum
