"""Floor 3, texts: what a caller may give as a batch. A column of strings (Arrow, or numpy bytes with offsets) is used
where it lies, without a copy of its text; a list goes to the native module as it is. Knows nothing of tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError

__all__ = ["FlatTexts", "Texts", "as_batch", "map_file", "put_around", "without_surrogates"]

FlatTexts = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""UTF-8 of all texts one after another, and offsets, one more than there are texts."""

Texts = Sequence[str] | Sequence[bytes] | FlatTexts | Any
"""A list of str, bytes or paths, `FlatTexts`, an array of numpy strings, or what Arrow sees as a column of strings."""


def as_batch(texts: Any) -> FlatTexts | Iterable[str | bytes]:
    """`texts` as flat arrays where it has them, else as something to iterate over."""
    if isinstance(texts, str | bytes):
        raise InputError(f"a batch is a list of texts, not one {type(texts).__name__}; write [text]")
    if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, np.ndarray) for part in texts):
        data, offsets = texts
        if data.dtype != np.uint8 or offsets.dtype.kind not in "iu":
            raise InputError(
                f"flat texts are uint8 bytes and integer offsets, not {data.dtype} and {offsets.dtype}; convert them"
            )
        return np.ascontiguousarray(data), np.ascontiguousarray(offsets, dtype=np.int64)
    if isinstance(texts, np.ndarray):
        if texts.ndim != 1:
            raise InputError(f"a batch has one dimension, this array has {texts.ndim}; flatten it")
        return _from_numpy(texts)
    if hasattr(texts, "to_arrow"):
        texts = texts.to_arrow()
    if type(texts).__module__.partition(".")[0] == "pyarrow":
        return _from_arrow(texts)
    if not isinstance(texts, Iterable):
        raise InputError(f"a batch is a list of texts, not a value of type {type(texts).__name__}")
    # A tuple is flat arrays to those who call.
    iterable: Iterable[str | bytes | Path] = list(texts) if isinstance(texts, tuple) else texts
    if isinstance(iterable, list) and iterable and isinstance(iterable[0], Path):
        iterable = [_content(text) if isinstance(text, Path) else text for text in iterable]
    return cast("Iterable[str | bytes]", iterable)


def _content(path: Path) -> bytes:
    """A file's UTF-8; checked here, where its name is known."""
    try:
        content = path.read_bytes()
        content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 at byte {error.start}; convert it first") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return content


def _from_numpy(texts: npt.NDArray[Any]) -> FlatTexts | list[str | bytes]:
    """Texts of a fixed width lose what fills them up, in one copy without an object for each; others become a list."""
    width = texts.dtype.itemsize // (4 if texts.dtype.kind == "U" else 1)
    if texts.dtype.kind in "SU" and texts.dtype.isnative and width and len(texts):
        codes = np.ascontiguousarray(texts).view(np.uint32 if texts.dtype.kind == "U" else np.uint8)
        if texts.dtype.kind == "S" or codes.max() < 0x80:
            lengths = np.char.str_len(texts)
            kept = np.arange(width) < lengths[:, None]
            data = codes.reshape(len(texts), width)[kept].astype(np.uint8, copy=False)
            return data, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    listed: list[str | bytes] = texts.tolist()
    return listed


def _from_arrow(column: Any) -> FlatTexts:
    """The buffers of a string column; chunks are put together by Arrow."""
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    kind = str(column.type)
    if column.null_count:
        index = column.is_null().to_pylist().index(True)
        raise InputError(f'text {index} of the column is null; fill it first, for example with fill_null("")')
    if kind in ("string_view", "binary_view"):
        column = column.cast("large_string" if kind == "string_view" else "large_binary")
        kind = str(column.type)
    if kind not in ("string", "large_string", "binary", "large_binary"):
        raise InputError(f"a column of type {kind} holds no texts; cast it to string")
    _, places, content = column.buffers()
    width = np.int64 if kind.startswith("large") else np.int32
    if places is None or places.size == 0:
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(places, dtype=width)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    data = np.zeros(0, np.uint8) if content is None else np.frombuffer(content, dtype=np.uint8)
    return data, offsets


def map_file(path: Path) -> FlatTexts:
    """A file as one text, memory-mapped; it must not change while it is used."""
    try:
        size = path.stat().st_size
        data = np.memmap(path, dtype=np.uint8, mode="r") if size else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return data.view(np.ndarray), np.array([0, size], dtype=np.int64)


def put_around(
    ids: npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64], before: Sequence[int], after: Sequence[int]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The ids of a batch with the same ids before and after those of each text."""
    if len(offsets) > 1 and (before or after):
        first, last = np.array(before, np.uint32), np.array(after, np.uint32)
        texts = (ids[start:end] for start, end in itertools.pairwise(offsets))
        ids = np.concatenate([part for text in texts for part in (first, text, last)])
        offsets = offsets + np.arange(len(offsets), dtype=np.int64) * (len(before) + len(after))
    return ids, offsets


def without_surrogates(text: str) -> str:
    """Lone surrogates become U+FFFD, pairs become their character, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
