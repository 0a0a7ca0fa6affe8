"""Floor 2, arrays: Arrow arrays made of buffers.

`pyarrow.array` imports pandas wherever it is installed, which costs a process a quarter to half a CPU second; arrays of
buffers do not. Knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["array_of", "flags", "integers", "scalar", "strings", "values"]


def strings(values: Sequence[str | None], kind: Any = None) -> pa.Array:
    """A column of `kind` (string by default, or large_string); None is a null."""
    kind = pa.string() if kind is None else kind
    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = np.zeros(len(values) + 1, dtype=np.int64 if kind == pa.large_string() else np.int32)
    np.cumsum([*map(len, encoded)], out=offsets[1:])
    valid = _bits(np.array([value is not None for value in values], dtype=np.bool_)) if None in values else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))])


def integers(values: npt.ArrayLike, *, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A column of int64; where `valid` is given and False stands a null."""
    whole = np.ascontiguousarray(values, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None if valid is None else _bits(valid), pa.py_buffer(whole)])


def flags(values: npt.ArrayLike) -> pa.Array:
    """A column of bool."""
    whole = np.asarray(values, dtype=np.bool_)
    return pa.Array.from_buffers(pa.bool_(), len(whole), [None, _bits(whole)])


def array_of(values: Sequence[Any], kind: Any) -> pa.Array:
    """A column of string, large_string, int64, float64 or bool without nulls, as Arrow's schema says."""
    if kind in (pa.string(), pa.large_string()):
        return strings(values, kind)
    if kind == pa.bool_():
        return flags(values)
    if kind == pa.int64():
        return integers(values)
    assert kind == pa.float64(), kind
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.array(values, dtype=np.float64))])


def scalar(value: str | float) -> pa.Scalar:
    """A string or a float64 to compare with, for which `pyarrow.scalar` would import pandas too."""
    return array_of([value], pa.string() if isinstance(value, str) else pa.float64())[0]


def values(column: Any) -> npt.NDArray[Any]:
    """The values of a column of numbers or bools without nulls, which `to_numpy` would import pandas for."""
    chunks = [_values(chunk) for chunk in getattr(column, "chunks", [column])]
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.zeros(0, dtype=_dtype(column.type))


def _values(chunk: pa.Array) -> npt.NDArray[Any]:
    assert chunk.null_count == 0, chunk.null_count
    buffer, first, count = chunk.buffers()[1], chunk.offset, len(chunk)
    if buffer is None or not count:
        return np.zeros(0, dtype=_dtype(chunk.type))
    if chunk.type == pa.bool_():
        bits = np.frombuffer(buffer, dtype=np.uint8, count=(first + count + 7) // 8)
        return np.unpackbits(bits, count=first + count, bitorder="little")[first:].astype(np.bool_)
    return np.frombuffer(buffer, dtype=_dtype(chunk.type), count=first + count)[first:]


def _dtype(kind: Any) -> np.dtype[Any]:
    return np.dtype({"bool": "bool", "double": "float64"}.get(str(kind), str(kind)))


def _bits(values: npt.NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
