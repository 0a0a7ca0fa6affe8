"""Floor 3, chunk store: the chunks of an index on disk, their texts in one memory-mapped file.

Knows nothing of how they are found.
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.encode.chunk import Chunk

__all__ = ["ChunkRecord", "ChunkStore", "write_chunks"]


class ChunkRecord(msgspec.Struct, frozen=True, array_like=True):
    """A chunk without its text."""

    path: str
    source: str
    language: str
    own: bool
    start_line: int
    end_line: int
    symbol: str


def write_chunks(folder: Path, chunks: Iterable[Chunk]) -> int:
    """Write `chunks` in their order; returns how many."""
    records: list[ChunkRecord] = []
    ends = array("q")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "texts.bin") as file:
        at = 0
        for chunk in chunks:
            at += file.write(chunk.text.encode("utf-8", "surrogatepass"))
            ends.append(at)
            records.append(
                ChunkRecord(
                    chunk.path,
                    chunk.source,
                    chunk.language,
                    chunk.own,
                    chunk.start_line,
                    chunk.end_line,
                    chunk.symbol,
                )
            )
    with atomic_write(folder / "text_ends.npy") as file:
        np.save(file, np.array(ends, np.int64))
    with atomic_write(folder / "chunks.msgpack") as file:
        file.write(msgspec.msgpack.encode(records))
    return len(records)


class ChunkStore:
    """Opened chunks: `records` in memory, `text(number)` from the file; reading from many threads is safe."""

    def __init__(self, folder: Path) -> None:
        try:
            self.records = msgspec.msgpack.decode((folder / "chunks.msgpack").read_bytes(), type=list[ChunkRecord])
            self._ends: npt.NDArray[np.int64] = np.load(folder / "text_ends.npy")
            with (folder / "texts.bin").open("rb") as file:
                self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(self._ends) else b""
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise InputError(f"the chunks in {folder} are damaged ({error}); build the index again") from error
        if len(self._ends) != len(self.records) or (len(self._ends) and self._ends[-1] != len(self._texts)):
            raise InputError(
                f"the chunks in {folder} are damaged ({len(self.records)} chunks, {len(self._ends)} texts, "
                f"{len(self._texts)} bytes of text); build the index again"
            )

    def __len__(self) -> int:
        return len(self.records)

    def text(self, number: int) -> str:
        """The text of a chunk."""
        start = int(self._ends[number - 1]) if number else 0
        return self._texts[start : int(self._ends[number])].decode("utf-8", "surrogatepass")
