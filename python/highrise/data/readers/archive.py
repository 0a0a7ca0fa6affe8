"""Floor 2, archives: tar (plain, gz, bz2, xz, zst), zip, wheels and sdists, streamed member by member.

Nothing is unpacked to disk. Links are never followed, a path that leaves the archive is refused, bombs end at the
limits of size, ratio and number; a damaged archive gives what can be read of it. Archives in archives stay closed.
"""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

from highrise.data.readers.item import Blob, Item, Limits, TooMuch, decompressed, stem_of

__all__ = ["DAMAGE", "read_tar", "read_zip"]

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    IndexError,
    KeyError,
)
"""What the standard library raises on hostile archives."""


def _inside(stem: str, name: str) -> tuple[str, str]:
    """The path of a member under a folder named as the archive, and why it is refused ("" when it is not)."""
    clean = name.replace("\\", "/").removeprefix("./")
    parts = clean.split("/")
    top = clean if parts[0] == stem else f"{stem}/{clean}"
    if clean.startswith("/") or ".." in parts or "\0" in clean or (len(clean) > 1 and clean[1] == ":"):
        return top, "unsafe path"
    return top, ""


def read_tar(blob: Blob, limits: Limits) -> Iterator[Item]:
    """The regular files of a tar archive in their order; a `Reader`."""
    stem = stem_of(blob.name)
    count = 0
    try:
        with (
            decompressed(blob, limits) as stream,
            tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive,
        ):
            for member in archive:
                count += 1
                archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise
                if count > limits.members:
                    raise TooMuch(f"more than {limits.members} members")
                if member.isdir():
                    continue
                path, reason = _inside(stem, member.name)
                if member.issym() or member.islnk():
                    reason = "symlink"
                elif not member.isfile():
                    reason = "not a file"
                elif not reason and member.size > limits.item_bytes:
                    reason = "too large"
                if reason:
                    detail = f"{member.size} bytes" if reason == "too large" else ""
                    yield Item(path=path, size=member.size, reason=reason, detail=detail)
                    continue
                opened = archive.extractfile(member)
                yield Item(path=path, size=member.size, data=opened.read() if opened is not None else b"")
    except TooMuch as error:
        yield Item(path=stem, size=blob.size, reason="bomb", detail=str(error))
    except DAMAGE as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=f"after {count} members: {error}"[:200])


def read_zip(blob: Blob, limits: Limits) -> Iterator[Item]:
    """The regular files of a zip archive in their order; a `Reader`. Encrypted members are counted as damaged."""
    stem = stem_of(blob.name)
    total = 0
    try:
        with blob.open() as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > limits.members:
                raise TooMuch(f"{len(members)} members")
            for member in members:
                if member.is_dir():
                    continue
                path, reason = _inside(stem, member.filename)
                if (member.external_attr >> 16) & 0o170000 == 0o120000:
                    reason = "symlink"
                elif not reason and member.file_size > limits.item_bytes:
                    reason = "too large"
                if reason:
                    detail = f"{member.file_size} bytes" if reason == "too large" else ""
                    yield Item(path=path, size=member.file_size, reason=reason, detail=detail)
                    continue
                try:
                    with archive.open(member) as opened:
                        data = opened.read(limits.item_bytes + 1)
                except DAMAGE as error:
                    yield Item(path=path, size=member.file_size, reason="damaged", detail=str(error)[:200])
                    continue
                total += len(data)
                if total > limits.total_bytes or (total > 16_000_000 and total > limits.ratio * max(blob.size, 1)):
                    raise TooMuch(f"unpacks to more than {limits.ratio} times its size or {limits.total_bytes} bytes")
                yield Item(path=path, size=len(data), data=data)
    except TooMuch as error:
        yield Item(path=stem, size=blob.size, reason="bomb", detail=str(error))
    except DAMAGE as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=str(error)[:200])
