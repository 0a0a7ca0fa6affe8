"""Floor 2, obstore: objects of S3, Azure Blob and Google Cloud Storage as blobs that readers can stream and seek in.

Credentials and endpoints come from the environment variables and files that each cloud's own tools use
(`STORAGE_EMULATOR_HOST` among them). A request is retried when the store answers 5xx or the connection is cut; after
that the build stops with one sentence and resumes later. Knows nothing of formats.
"""

from __future__ import annotations

import fnmatch
import io
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, BinaryIO

from highrise.core.errors import DataError, InputError
from highrise.data.readers.item import Blob

__all__ = ["objects"]

_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
}
_BLOCK = 4 << 20
_TRIES = 5
_RETRIES = 4


def objects(address: str) -> Iterator[Blob]:
    """The objects under `s3://bucket/prefix/`, or those that match a pattern, sorted by key.

    Raises `InputError` when the bucket is missing, the key is refused or the store cannot be reached.
    """
    try:
        import obstore
    except ImportError as error:
        raise InputError(f'reading {address} needs obstore; install "highrise[readers]"') from error
    root, key = re.match(r"(\w+://[^/]+)/?(.*)", address, re.S).groups()  # type: ignore[union-attr]
    wild = re.search(r"[*?\[]", key)
    prefix = key[: wild.start()].rpartition("/")[0] if wild else key
    store = _store(root, address)
    try:
        found = [meta for batch in obstore.list(store, prefix=prefix or None) for meta in batch]
        if not found and key and not wild:
            found = [obstore.head(store, key)]
    except Exception as error:
        raise InputError(f"{address} cannot be listed: {_reason(error)}; check address, key and connection") from error
    for meta in sorted(found, key=lambda meta: str(meta["path"])):
        if wild and not fnmatch.fnmatchcase(meta["path"], key):
            continue
        path, size = str(meta["path"]), int(meta["size"])
        yield Blob(
            name=f"{root}/{path}",
            size=size,
            stamp=str(meta.get("e_tag") or meta["last_modified"]),
            open=_Opener(store, path, size, f"{root}/{path}"),
        )


def _store(root: str, address: str) -> Any:
    import obstore.store

    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "") if root.startswith("gs://") else ""
    config: Any = {"base_url": emulator, "skip_signature": True} if emulator else None
    retry: Any = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=60)}
    options: Any = {"allow_http": True} if emulator or _is_plain(root) else None
    try:
        return obstore.store.from_url(root, config=config, client_options=options, retry_config=retry)
    except Exception as error:
        raise InputError(f"{address} cannot be opened: {_reason(error)}; check the address and your key") from error


def _is_plain(root: str) -> bool:
    """Whether the environment names an endpoint without TLS for this kind of store (a server of one's own, a test)."""
    names = _ENDPOINTS[root.partition("://")[0]]
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _reason(error: Exception) -> str:
    """The first line of what obstore says, without its debugging dump."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]


class _Opener:
    """Opens one object; a class, so that a blob compares and prints by what it names."""

    def __init__(self, store: Any, path: str, size: int, name: str) -> None:
        self._arguments = (store, path, size, name)

    def __call__(self) -> BinaryIO:
        return io.BufferedReader(_Object(*self._arguments), 1 << 16)


class _Object(io.RawIOBase):
    """A seekable view of one object, fetched in ranges of 4 MiB of which one is held."""

    def __init__(self, store: Any, path: str, size: int, name: str) -> None:
        self._store, self._path, self._size, self._name = store, path, size, name
        self._position, self._start, self._held = 0, 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        at = self._position - self._start
        if not 0 <= at < len(self._held):
            self._start, at = self._position, 0
            self._held = self._fetch(self._start, min(self._size, self._start + _BLOCK))
        piece = self._held[at : at + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _fetch(self, start: int, end: int) -> bytes:
        import obstore

        for attempt in range(1, _TRIES + 1):
            try:
                data = bytes(obstore.get_range(self._store, self._path, start=start, end=end))
                if len(data) == end - start:
                    return data
                reason = f"{len(data)} of {end - start} bytes came"
            except (FileNotFoundError, PermissionError) as error:
                raise DataError(f"{self._name} can no longer be read: {_reason(error)}; list it again") from error
            except Exception as error:
                reason = _reason(error)
            if attempt < _TRIES:
                time.sleep(0.1 * 2**attempt)
        raise DataError(
            f"{self._name} could not be read in {_TRIES} tries ({reason}); start again later, finished work is kept"
        )
