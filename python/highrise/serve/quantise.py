"""Floor 6, quantise: a GGUF file with its matrices rounded to 4 or 8 bits, in groups of 32 (at 4 bits with a minimum).

"round" lets the extremes be codes; "clip" tries narrower ranges too, each with the line that fits its codes best, and
keeps the least squared error. Matrices that have no more bits than asked for stay as they are; at 4 bits the embedding
and the head get 8. Needs no text. Knows nothing of how good the result is: `perplexity.py` measures that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from highrise.core.blocks import BLOCKS, dequantise
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf, GgufTensor
from highrise.core.gguf_rewrite import rewrite_gguf
from highrise.core.weights import open_weights

__all__ = ["Method", "num_weights", "quantise_file", "to_blocks"]

Method = Literal["round", "clip"]
_GROUP = 32
_TYPES = {4: "Q4_1", 8: "Q8_0"}


def quantise_file(
    source: Path,
    out: Path,
    *,
    bits: Literal[4, 8],
    method: Method = "clip",
    advance: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write `source` with rounded matrices to `out`, atomically; how many tensors of each type it now has.

    `advance` hears the number of weights done, tensor by tensor. `InputError` for what is no decoder in a GGUF file.
    """
    if source.is_dir():
        raise InputError(
            f"{source} is a folder; GGUF files are quantised (llama.cpp's convert_hf_to_gguf.py makes one)"
        )
    if source.resolve() == out.resolve():
        raise InputError(f"{out} is the file that is read; give the result another name")
    open_weights(source)
    file = Gguf(source)
    types = {name: kind for name, tensor in file.tensors.items() if (kind := _type_of(tensor, bits)) is not None}

    def blocks(name: str) -> npt.NDArray[np.uint8]:
        values = dequantise(file.read(name), file.tensors[name].type)
        result = to_blocks(values, types[name], method)
        if advance is not None:
            advance(values.size)
        return result

    rewrite_gguf(file, out, types, blocks)
    return dict(Counter(types.get(name, tensor.type) for name, tensor in file.tensors.items()))


def num_weights(source: Path, bits: Literal[4, 8]) -> int:
    """Weights that `quantise_file` would round."""
    tensors = Gguf(source).tensors.values()
    return sum(int(np.prod(tensor.shape)) for tensor in tensors if _type_of(tensor, bits) is not None)


def _type_of(tensor: GgufTensor, bits: Literal[4, 8]) -> str | None:
    """The type that a tensor gets, or None when it stays as it is."""
    if len(tensor.shape) != 2 or tensor.shape[1] % _GROUP:
        return None
    kind = _TYPES[8 if tensor.name.startswith(("token_embd.", "output.")) else bits]
    return kind if _bits(tensor.type) > _bits(kind) else None


def _bits(kind: str) -> float:
    block = BLOCKS[kind]
    return 8 * block.num_bytes / block.weights


def to_blocks(values: npt.NDArray[np.float32], kind: str, method: Method) -> npt.NDArray[np.uint8]:
    """Flat float32 values (a multiple of 32) as blocks of Q4_1 or Q8_0, as one uint8 array."""
    grouped = values.reshape(-1, _GROUP)
    result = np.empty((len(grouped), BLOCKS[kind].num_bytes), np.uint8)
    for begin in range(0, len(grouped), 1 << 15):
        part = slice(begin, begin + (1 << 15))
        if kind == "Q4_1":
            codes, scales, minima = _between(grouped[part], method)
            result[part, :2], result[part, 2:4] = _half_bytes(scales), _half_bytes(minima)
            small = codes.astype(np.uint8)
            result[part, 4:] = small[:, :16] | (small[:, 16:] << np.uint8(4))
        else:
            codes, scales = _around_zero(grouped[part], method)
            result[part, :2] = _half_bytes(scales)
            result[part, 2:] = codes.astype(np.int8).view(np.uint8)
    return result.reshape(-1)


def _half_bytes(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return values.astype(np.float16)[:, None].view(np.uint8)


def _halved(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values.astype(np.float16).astype(np.float32)


def _between(
    x: npt.NDArray[np.float32], method: Method
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Codes 0 to 15 (n, 32), scales and minima (n,), both already in half precision: code * scale + minimum."""
    least, largest = x.min(axis=1), x.max(axis=1)
    best_minimum = _halved(least)
    best_scale = _halved((largest - best_minimum) / 15)
    best_codes = _codes(x - best_minimum[:, None], best_scale, 0, 15)
    if method == "round":
        return best_codes, best_scale, best_minimum
    best_error = ((best_codes * best_scale[:, None] + best_minimum[:, None] - x) ** 2).sum(axis=1)
    total = x.sum(axis=1)
    for share in np.linspace(0.8, 1.04, 13, dtype=np.float32):
        scale = (largest - least) * share / 15
        codes = _codes(x - ((largest + least) / 2 - 7.5 * scale)[:, None], scale, 0, 15)
        count, square, cross = codes.sum(axis=1), (codes * codes).sum(axis=1), (codes * x).sum(axis=1)
        spread = _GROUP * square - count * count
        scale = np.divide(_GROUP * cross - count * total, spread, out=np.zeros_like(scale), where=spread > 0)
        minimum = _halved((total - scale * count) / _GROUP)
        scale = _halved(scale)
        error = ((codes * scale[:, None] + minimum[:, None] - x) ** 2).sum(axis=1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale, best_minimum = np.where(better, scale, best_scale), np.where(better, minimum, best_minimum)
        best_codes = np.where(better[:, None], codes, best_codes)
    return best_codes, best_scale, best_minimum


def _around_zero(x: npt.NDArray[np.float32], method: Method) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Codes -128 to 127 (n, 32) and scales (n,), already in half precision."""
    extreme = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]
    best_scale = _halved(extreme / np.float32(-128))
    best_codes = _codes(x, best_scale, -128, 127)
    if method == "round":
        return best_codes, best_scale
    best_error = ((best_codes * best_scale[:, None] - x) ** 2).sum(axis=1)
    for candidate in range(-10, 7):
        codes = _codes(x, extreme / -(128 + candidate * 0.01), -128, 127)
        square = (codes * codes).sum(axis=1)
        scale = _halved(np.divide((codes * x).sum(axis=1), square, out=np.zeros_like(square), where=square > 0))
        error = ((codes * scale[:, None] - x) ** 2).sum(axis=1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_codes = np.where(better[:, None], codes, best_codes)
    return best_codes, best_scale


def _codes(
    x: npt.NDArray[np.float32], scale: npt.NDArray[np.float32], least: int, most: int
) -> npt.NDArray[np.float32]:
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    codes: npt.NDArray[np.float32] = np.clip(np.rint(x * inverse[:, None]), least, most)
    return codes
