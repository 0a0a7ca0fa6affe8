"""Floor 3, nearest chunks: the numbers of the chunks whose vectors are nearest, from the index folder or from a store.

Knows nothing of words, texts or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write
from highrise.encode.adapters.faiss import FaissIndex
from highrise.encode.store import EMBEDDED, Floats, VectorStore, open_store

__all__ = ["FolderVectors", "Nearest", "StoreVectors", "open_nearest", "write_row_ids"]

_CHUNKS = "chunks.npy"
_IDS = "ids.npy"
_ID_BYTES = 16

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Nearest(Protocol):
    """Vectors that can be compared with a query's; may be shared by threads."""

    chunks: Numbers
    """The numbers of the chunks that have a vector."""

    def find(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None, own: bool | None, allowed: Mask | None
    ) -> Numbers:
        """Chunk numbers, best first, about `limit` of them; `allowed` marks the chunks that the filter lets through."""

    def close(self) -> None:
        """Let go of what was opened."""


class FolderVectors:
    """The FAISS index inside the index folder."""

    def __init__(self, folder: Path) -> None:
        self.chunks: Numbers = np.load(folder / _CHUNKS)
        self._index = FaissIndex(folder / "index.faiss")

    def find(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None, own: bool | None, allowed: Mask | None
    ) -> Numbers:
        """See `Nearest`."""
        rows = self._index.search(vector, limit, allowed=None if allowed is None else allowed[self.chunks])
        return self.chunks[rows]

    def close(self) -> None:
        """Nothing is held open."""


class StoreVectors:
    """A store outside. Rows that no chunk here has (another build wrote them since) are passed over."""

    def __init__(self, folder: Path, store: VectorStore) -> None:
        self.chunks: Numbers = np.load(folder / _CHUNKS)
        self._store = store
        self._numbers: dict[str, list[int]] = {}
        for row, number in zip(np.load(folder / _IDS), self.chunks.tolist(), strict=True):
            self._numbers.setdefault(row.tobytes().hex(), []).append(number)
        if not store.count():
            raise EncodeError("the store holds no rows; build the index again")

    def find(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None, own: bool | None, allowed: Mask | None
    ) -> Numbers:
        """See `Nearest`."""
        found = self._store.search(vector, limit, languages=languages, own=own)
        numbers = [number for id in found for number in self._numbers.get(id, ())]
        return np.array([number for number in numbers if allowed is None or allowed[number]], np.int64)

    def close(self) -> None:
        """Let go of the connection."""
        self._store.close()


def write_row_ids(folder: Path, ids: Sequence[str]) -> None:
    """Write the row ids of the chunks in `chunks.npy`, in their order."""
    with atomic_write(folder / _IDS) as file:
        np.save(file, np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, _ID_BYTES))


def open_nearest(folder: Path, store: str, *, dimension: int) -> Nearest:
    """Open the vectors of the index whose folder `folder` is, wherever they are."""
    try:
        if store == EMBEDDED:
            return FolderVectors(folder)
        opened = open_store(store, dimension=dimension, create=False)
        try:
            return StoreVectors(folder, opened)
        except BaseException:
            opened.close()
            raise
    except (OSError, ValueError) as error:
        raise InputError(f"the vectors in {folder} are damaged ({error}); build the index again") from error
