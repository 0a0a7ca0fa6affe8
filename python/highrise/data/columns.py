"""Floor 2, columns: texts as callers hold them, handed to the native module without copying.

Lists of str or bytes, Arrow columns (and what exports one: pandas, polars, datasets), numpy columns. Knows nothing of
what is done with the texts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from highrise.core.errors import InputError

__all__ = ["Texts", "hand_over"]

Texts = Any
"""A sequence of str or of bytes, an Arrow string or binary array, chunked or not, or a numpy column (no stubs)."""

_WIDE = {"string": False, "binary": False, "large_string": True, "large_binary": True}
_VIEWS = {"string_view": "large_string", "binary_view": "large_binary"}


def hand_over(texts: Texts) -> list[Any]:
    """What the native module takes: a list of texts, (offsets, data, first, rows, wide) for each Arrow chunk, or one
    (bytes, width) of a numpy column.

    Copied are only what has no such form: numpy columns of `U` or `StringDType`, Arrow views. Raises `InputError` for
    nulls and for what holds no texts.
    """
    if isinstance(texts, list):
        return texts
    if isinstance(texts, (str, bytes)):
        raise InputError(f"texts is one {type(texts).__name__}; give a list of texts")
    if isinstance(texts, np.ndarray):
        return _of_numpy(texts)
    if hasattr(texts, "__arrow_c_stream__") and not hasattr(texts, "chunks"):
        import pyarrow as pa

        texts = pa.chunked_array(texts)
    chunks = getattr(texts, "chunks", [texts] if hasattr(texts, "buffers") else None)
    if chunks is None:
        return list(texts)
    return [handed for chunk in chunks if len(chunk) for handed in _of_arrow(chunk)]


def _of_arrow(chunk: Any) -> list[Any]:
    kind = str(chunk.type)
    if kind in _VIEWS:
        chunk, kind = chunk.cast(_VIEWS[kind]), _VIEWS[kind]
    if kind not in _WIDE:
        raise InputError(f"the Arrow column has type {kind}; give a string or binary column")
    if chunk.null_count:
        raise InputError(f"the Arrow column has {chunk.null_count} nulls; drop or fill them first")
    _, offsets, data = chunk.buffers()
    nothing = np.empty(0, dtype=np.uint8)
    view = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else nothing
    return [(np.frombuffer(offsets, dtype=np.uint8), view, chunk.offset, len(chunk), _WIDE[kind])]


def _of_numpy(column: np.ndarray[Any, Any]) -> list[Any]:
    if column.ndim != 1:
        raise InputError(f"the numpy column has shape {column.shape}; give one dimension")
    if column.dtype.kind == "S":
        width = column.dtype.itemsize
        if not len(column):
            return []
        if not width:
            return [b""] * len(column)
        return [(np.ascontiguousarray(column).view(np.uint8), width)]
    if column.dtype.kind in "OUT":
        found: list[Any] = column.tolist()
        return found
    raise InputError(f"the numpy column has type {column.dtype}; give str, bytes or object")
