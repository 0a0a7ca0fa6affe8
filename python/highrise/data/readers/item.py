"""Floor 2, items: what a reader takes (a blob, limits) and what it gives (items, or the reason why there is none).

Knows nothing of formats.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

__all__ = ["Blob", "Bounded", "Item", "Limits", "Reader", "TooMuch", "decompressed", "local_blob", "stem_of"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One file or record. With a `reason` (a key of `filters.REASONS`) there is no `data`."""

    path: str
    size: int
    data: bytes = b""
    reason: str = ""
    detail: str = ""
    license: str = ""
    """What the container states of this item, an SPDX identifier; "" when it states nothing."""
    repository: str = ""
    """Where the container says that it comes from; "" when it does not."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one container. An item over `item_bytes` is counted, not read."""

    item_bytes: int = 1_000_000
    total_bytes: int = 16_000_000_000
    """Unpacked bytes of one container."""
    ratio: int = 200
    """Unpacked bytes a packed byte, from 16 MB of unpacked bytes on."""
    members: int = 1_000_000
    text_column: str = "text"


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """A stored object: a local file or one of an object store. `stamp` changes when its content does."""

    name: str
    size: int
    stamp: str
    open: Callable[[], BinaryIO]


class Reader(Protocol):
    """A function from a stored object to its items, in the object's own order."""

    def __call__(self, blob: Blob, limits: Limits) -> Iterator[Item]:
        """Stream the items of `blob`; what cannot be read is an item with a reason, never an exception."""
        ...


class TooMuch(Exception):  # noqa: N818
    """A container unpacks to more than its limits."""


def local_blob(path: Path) -> Blob:
    """A file of this machine."""
    status = path.stat()
    return Blob(
        name=path.as_posix(),
        size=status.st_size,
        stamp=f"{status.st_size}:{status.st_mtime_ns}",
        open=lambda: path.open("rb"),
    )


class Bounded(io.RawIOBase):
    """A stream of unpacked bytes that raises `TooMuch` at the limits. `packed` tells how many packed bytes went in."""

    _FROM = 16_000_000

    def __init__(self, stream: BinaryIO, limits: Limits, packed: Callable[[], int]) -> None:
        self._stream, self._limits, self._packed = stream, limits, packed
        self._count = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def read(self, size: int = -1) -> bytes:  # noqa: D102
        data = self._stream.read(size if size is not None and size >= 0 else 1 << 20)
        self._count += len(data)
        if self._count > self._limits.total_bytes:
            raise TooMuch(f"unpacks to more than {self._limits.total_bytes} bytes")
        if self._count > self._FROM and self._count > self._limits.ratio * max(self._packed(), 1):
            raise TooMuch(f"unpacks to more than {self._limits.ratio} times its size")
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # noqa: D102
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Gunzip:
    """Members of gzip one after another. Unlike `gzip.GzipFile` it gives all that stands before a cut or a damage."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._zlib, self._rest = raw, zlib.decompressobj(31), b""
        self._begun = False

    def read(self, size: int) -> bytes:
        while True:
            if self._zlib.eof:
                self._rest = self._zlib.unused_data.lstrip(b"\0")
                self._zlib, self._begun = zlib.decompressobj(31), False
            block = self._rest or self._raw.read(1 << 16)
            if not block:
                if self._begun:
                    raise EOFError("the compressed data ends too early")
                return b""
            self._begun = True
            data = self._zlib.decompress(block, size)
            self._rest = self._zlib.unconsumed_tail
            if data:
                return data


def decompressed(blob: Blob, limits: Limits) -> BinaryIO:
    """The bytes of `blob` unpacked by its ending (.gz, .bz2, .xz, .zst), within the limits."""
    name = blob.name.lower()
    raw = blob.open()
    if re.search(r"\.(?:gz|tgz|crate)$", name):
        stream: BinaryIO = _Gunzip(raw)  # type: ignore[assignment]
    elif re.search(r"\.(?:bz2|tbz2?)$", name):
        import bz2

        stream = bz2.BZ2File(raw)  # type: ignore[assignment]
    elif re.search(r"\.t?xz$", name):
        import lzma

        stream = lzma.LZMAFile(raw)  # type: ignore[assignment]  # noqa: SIM115
    elif name.endswith(".zst"):
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
    else:
        return raw
    return io.BufferedReader(Bounded(stream, limits, raw.tell), 1 << 16)


def stem_of(name: str) -> str:
    """The name of a container without folders and endings: `a/requests-2.31.0.tar.gz` -> `requests-2.31.0`."""
    last = name.rstrip("/").rpartition("/")[2]
    return re.sub(r"(?i)(?:\.(?:tar|jsonl|ndjson|warc|wet|wat))*\.[a-z]\w{0,7}$", "", last) or last
