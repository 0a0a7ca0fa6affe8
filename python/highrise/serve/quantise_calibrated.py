"""Floor 6, quantise: matrices rounded while a text goes through the decoder, with AWQ's scales, with GPTQ, or both.

Knows which method is asked for and where scales go; how a text goes through is `quantise_walk.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from highrise.core.weights import WeightFile
from highrise.serve.quantise_awq import activation_scales
from highrise.serve.quantise_blocks import GROUP, Kind, Rounded, round_matrix
from highrise.serve.quantise_gptq import gptq
from highrise.serve.quantise_kept import Kept
from highrise.serve.quantise_walk import Site, walk

__all__ = ["CALIBRATED", "Calibration", "calibrate"]

Floats = npt.NDArray[np.float32]


class Calibration(NamedTuple):
    """What a method that needs a text does: AWQ's scales, GPTQ's compensation. Without it groups are clipped."""

    scales: bool
    compensates: bool


CALIBRATED = {
    "awq": Calibration(True, False),
    "gptq": Calibration(False, True),
    "awq-gptq": Calibration(True, True),
}


def calibrate(
    file: WeightFile,
    windows: npt.NDArray[np.int64],
    kinds: Mapping[str, Kind],
    method: Calibration,
    folder: Path,
    advance: Callable[[int], None] | None = None,
) -> Kept:
    """Round the matrices of `kinds` (Hugging Face names) over `windows` of token ids (windows, tokens).

    What comes back has the blocks of each matrix, uint8 (rows, bytes), and the vectors that took up scales, float32, by
    Hugging Face names; it lies in `folder`, layer by layer, and a run that was killed goes on with what is there.
    Matrices of Q8_0 are left out: they need no help. `advance` hears the number of tokens, layer by layer.
    """
    kinds = {name: kind for name, kind in kinds.items() if kind != "Q8_0"}
    kept = Kept(folder, _key(file, windows, kinds, method))
    rounder = _Rounder(file, kinds, method)
    if advance is not None:
        advance(kept.layers * windows.size)

    def finished(states: Floats) -> None:
        kept.put(rounder.take(), states)
        if advance is not None:
            advance(windows.size)

    head = bool(kinds.keys() & {"model.embed_tokens.weight", "lm_head.weight"})
    walk(file, windows, rounder.visit, finished, begin=kept.layers, states=kept.states, head=head)
    return kept


def _key(file: WeightFile, windows: npt.NDArray[np.int64], kinds: Mapping[str, Kind], method: Calibration) -> str:
    about = file.path.stat()
    named = repr((str(file.path.resolve()), about.st_size, about.st_mtime_ns, sorted(kinds.items()), method))
    return hashlib.sha256(named.encode() + windows.astype("<i8").tobytes()).hexdigest()


class _Rounder:
    """The layer under way: its rounded matrices, and vectors that took up scales."""

    def __init__(self, file: WeightFile, kinds: Mapping[str, Kind], method: Calibration) -> None:
        self._file, self._kinds, self._method = file, kinds, method
        self._matrices: dict[str, Rounded] = {}
        self._vectors: dict[str, Floats] = {}

    def take(self) -> dict[str, npt.NDArray[np.generic]]:
        """What came out, and begin anew."""
        result: dict[str, npt.NDArray[np.generic]] = {**self._vectors}
        result |= {name: matrix.blocks() for name, matrix in self._matrices.items()}
        self._matrices, self._vectors = {}, {}
        return result

    def visit(self, site: Site, inputs: Floats, matrices: dict[str, Floats]) -> dict[str, Floats]:
        """Round those of `matrices` that are to be, and give what they now are to inputs that no scale has met."""
        names = [name for name in site.names if name in self._kinds]
        if not names:
            return matrices
        scale = np.ones(inputs.shape[1], np.float32)
        if self._method.scales and len(names) == len(site.names) and self._takes(site.source):
            chosen = [matrices[name] for name in names]
            scale = activation_scales(inputs, chosen, site.columns, [self._kinds[name] for name in names])
            self._divide(site, scale)
        moment = inputs.T @ inputs
        moment /= np.outer(scale, scale)
        for name in names:
            scaled = matrices[name] * scale
            if self._method.compensates:
                rounded = gptq(scaled, moment, self._kinds[name])
            else:
                rounded = round_matrix(scaled, self._kinds[name], "clip", _diagonal_blocks(moment))
            self._matrices[name] = rounded
            matrices[name] = rounded.values() / scale
        return matrices

    def _takes(self, source: str) -> bool:
        """Whether something can be divided by a scale: a norm always, a matrix when it is among the rounded."""
        return source.endswith("norm") or f"{source}.weight" in self._matrices

    def _divide(self, site: Site, scale: Floats) -> None:
        own = np.ones(int(site.columns.max()) + 1, np.float32)
        own[site.columns] = scale
        matrix = self._matrices.get(f"{site.source}.weight")
        if matrix is not None:
            self._matrices[f"{site.source}.weight"] = matrix.with_rows_divided(own)
        for part in ("weight", "bias"):
            name = f"{site.source}.{part}"
            if name in self._file.tensors and name not in self._matrices:
                self._vectors[name] = self._file.tensors[name].dequantise().reshape(-1) / own


def _diagonal_blocks(moment: Floats) -> Floats:
    """The second moments of each group of columns among themselves, (groups, 32, 32)."""
    groups = len(moment) // GROUP
    blocks: Floats = np.einsum("gigj->gij", moment.reshape(groups, GROUP, groups, GROUP))
    return np.ascontiguousarray(blocks)
