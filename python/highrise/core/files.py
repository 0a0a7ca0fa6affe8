"""Floor 0, files: nothing half-written ever carries its final name.

A file is written beside its place, synced and renamed. A full disk is one sentence and leaves the old file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from highrise.core.errors import HighriseError, InputError

__all__ = [
    "atomic_write",
    "exclusive",
    "explain_os_error",
    "remove_leftovers",
    "replace_folder",
    "sha256_file",
    "sync_folder",
]


def explain_os_error(error: OSError, doing: str) -> HighriseError:
    """One sentence for what the operating system refused while `doing` ("writing /a/b")."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"the disk is full while {doing}; free some space and start again, finished work is kept")
    return InputError(f"failed while {doing}: {error.strerror or error}")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends well."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs of `atomic_write` left inside `folder`; nobody may be writing there."""
    for path in folder.rglob(".*.partial"):
        if re.fullmatch(r"\..+\.\d+\.partial", path.name) and path.is_file():
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(partial: Path, final: Path) -> None:
    """Give a finished folder its final name; an older one of that name is removed first."""
    import shutil

    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        partial.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.rename(final)
    sync_folder(final.parent)


def sha256_file(path: Path) -> str:
    """The sha256 of a file, 64 hex digits, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def exclusive(path: Path, *, busy: str) -> Iterator[None]:
    """Hold the lock file `path` for the block; if another process holds it, raise `InputError(busy)`.

    The kernel drops the lock when the process dies, so a kill leaves nothing to clean up.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(busy) from error
        yield
