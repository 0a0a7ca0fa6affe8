"""Floor 6, quantise: a GGUF file with its matrices at 4 or 8 bits, in groups of 32.

Matrices that have no more bits than asked for stay as they are; embedding and head have bits of their own. What was
rounded over a text (`quantise_calibrated.py`) is put in its place, everything else is rounded by itself. Knows nothing
of how good the result is: `perplexity.py` measures that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.blocks import BLOCKS, dequantise
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf, GgufTensor
from highrise.core.gguf_rewrite import rewrite_gguf
from highrise.core.weights import WeightFile, file_rows, open_weights, parts_of
from highrise.serve.quantise_blocks import GROUP, Kind, Rounding, round_matrix
from highrise.serve.quantise_kept import Kept

__all__ = ["Bits", "Widths", "kinds_by_matrix", "num_weights", "quantise_file"]

Bits = Literal["int4", "int4-symmetric", "int8"]
_KINDS: dict[Bits, Kind] = {"int4": "Q4_1", "int4-symmetric": "Q4_0", "int8": "Q8_0"}


class Widths(msgspec.Struct, frozen=True, kw_only=True):
    """What the matrices become: "int4" has a scale and a minimum a group, "int4-symmetric" a scale, as "int8" has."""

    weights: Bits = "int4"
    head: Bits = "int8"
    """Of the head, and of the embedding where it is the head; else the embedding, of which few rows are read, has 8."""


def quantise_file(
    source: Path,
    out: Path,
    widths: Widths,
    *,
    rounding: Rounding = "clip",
    calibrated: Kept | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write `source` with rounded matrices to `out`, atomically; how many tensors of each type it now has.

    `advance` hears the number of weights done, tensor by tensor. `InputError` for what is no decoder in a GGUF file.
    """
    if source.resolve() == out.resolve():
        raise InputError(f"{out} is the file that is read; give the result another name")
    weights = _opened(source)
    file = Gguf(source)
    kinds = _kinds(file, widths)
    found = calibrated.names() if calibrated is not None else set()
    vectors = [name for name in file.tensors if name not in kinds and found & set(parts_of(weights, name))]
    types: dict[str, str] = {**kinds, **dict.fromkeys(vectors, "F32")}

    def blocks(name: str) -> npt.NDArray[np.uint8]:
        parts = parts_of(weights, name)
        if calibrated is not None and found.issuperset(parts):
            kept = np.concatenate([np.asarray(calibrated.get(part)) for part in parts])
            result = kept.view(np.uint8) if name in vectors else file_rows(weights, name, kept)
        else:
            stored = file.tensors[name]
            values = dequantise(file.read(name), stored.type).reshape(stored.shape)
            result = round_matrix(values, kinds[name], rounding).blocks()
        if advance is not None and name in kinds:
            advance(int(np.prod(file.tensors[name].shape)))
        return result.reshape(-1)

    rewrite_gguf(file, out, types, blocks)
    return dict(Counter(types.get(name, tensor.type) for name, tensor in file.tensors.items()))


def kinds_by_matrix(source: Path, widths: Widths) -> dict[str, Kind]:
    """The type that each matrix gets that does not stay as it is, by Hugging Face names."""
    weights = _opened(source)
    kinds = _kinds(Gguf(source), widths)
    return {part: kind for name, kind in kinds.items() for part in parts_of(weights, name)}


def num_weights(source: Path, widths: Widths) -> int:
    """Weights that `quantise_file` would round."""
    _opened(source)
    file = Gguf(source)
    return sum(int(np.prod(file.tensors[name].shape)) for name in _kinds(file, widths))


def _opened(source: Path) -> WeightFile:
    if source.is_dir():
        raise InputError(
            f"{source} is a folder; GGUF files are quantised (llama.cpp's convert_hf_to_gguf.py makes one)"
        )
    return open_weights(source)


def _kinds(file: Gguf, widths: Widths) -> dict[str, Kind]:
    """By the names of the file."""
    head = "output." if "output.weight" in file.tensors else "token_embd."
    bits: dict[str, Bits] = {"token_embd.": "int8", head: widths.head}
    found = {
        name: _kind_of(tensor, next((bits[top] for top in bits if name.startswith(top)), widths.weights))
        for name, tensor in file.tensors.items()
    }
    return {name: kind for name, kind in found.items() if kind is not None}


def _kind_of(tensor: GgufTensor, bits: Bits) -> Kind | None:
    """The type that a tensor gets, or None when it stays as it is."""
    if len(tensor.shape) != 2 or tensor.shape[1] % GROUP:
        return None
    kind = _KINDS[bits]
    return kind if _bits(tensor.type) > _bits(kind) else None


def _bits(kind: str) -> float:
    block = BLOCKS[kind]
    return 8 * block.num_bytes / block.weights
