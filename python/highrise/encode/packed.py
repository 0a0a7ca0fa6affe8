"""Floor 3, packed: a corpus as one flat array of token ids with the place where each document starts, memory-mapped.

The file: 64 bytes of header, then the ids (uint16 while the vocabulary fits, else uint32), then the int64 offsets, one
more than there are documents, on the next multiple of 8. All little-endian. Knows nothing of text.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write

__all__ = ["Batch", "PackedTokens", "write_packed"]

Batch = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
"""Ids of some documents one after another, and offsets, as `Tokenizer.encode_batch` returns them."""

_MAGIC = b"HRTOKENS"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQQ")
_HEADER_BYTES = 64


def write_packed(path: Path, batches: Iterable[Batch], vocab_size: int) -> tuple[int, int]:
    """Write `batches` and return the numbers of tokens and documents; the file appears only when it is whole."""
    kind = _kind(vocab_size)
    num_tokens = 0
    starts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype="<i8")]
    with atomic_write(path) as file:
        file.write(bytes(_HEADER_BYTES))
        for ids, offsets in batches:
            if len(ids) and int(ids.max()) >= vocab_size:
                raise EncodeError(f"token id {int(ids.max())} does not belong to a vocabulary of {vocab_size}")
            if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(ids):
                raise EncodeError(f"the offsets of a batch must run from 0 to its {len(ids)} ids")
            file.write(np.ascontiguousarray(ids, dtype=kind).data)
            starts.append(offsets[1:].astype("<i8") + num_tokens)
            num_tokens += len(ids)
        file.write(bytes(-file.tell() % 8))
        all_starts = np.concatenate(starts)
        file.write(all_starts.data)
        file.seek(0)
        file.write(_HEADER.pack(_MAGIC, _VERSION, kind.itemsize, vocab_size, num_tokens, len(all_starts) - 1))
    return num_tokens, len(all_starts) - 1


class PackedTokens:
    """A packed file, mapped and read-only: document i is `tokens[offsets[i] : offsets[i + 1]]`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
            size = self.path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read the token file {path}: {error.strerror or error}") from error
        if len(header) < _HEADER_BYTES or header[:8] != _MAGIC:
            raise InputError(f"{path} is no packed token file; make one with `highrise encode pack`")
        _, version, width, self.vocab_size, num_tokens, num_documents = _HEADER.unpack_from(header)
        if version != _VERSION or width not in (2, 4):
            raise InputError(f"{path} has format {version}.{width}, this version reads {_VERSION}; pack it again")
        after = -(-(_HEADER_BYTES + num_tokens * width) // 8) * 8
        if size != after + (num_documents + 1) * 8:
            raise InputError(f"{path} is not whole: it has {size:,} bytes; pack it again")
        self.tokens: npt.NDArray[np.uint16 | np.uint32] = self._map(f"<u{width}", _HEADER_BYTES, num_tokens)
        self.offsets: npt.NDArray[np.int64] = self._map("<i8", after, num_documents + 1)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def document(self, index: int) -> npt.NDArray[np.uint16 | np.uint32]:
        """The ids of one document."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def _map(self, kind: str, offset: int, count: int) -> npt.NDArray[Any]:
        if count == 0:
            return np.zeros(0, dtype=kind)
        return np.memmap(self.path, dtype=kind, mode="r", offset=offset, shape=(count,))


def _kind(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    if not 0 < vocab_size <= 1 << 32:
        raise InputError(f"a vocabulary of {vocab_size} cannot be packed: ids must fit 32 bits")
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
