"""Floor 2, single files: an object that is no container is one item."""

from __future__ import annotations

from collections.abc import Iterator

from highrise.data.readers.item import Blob, Item, Limits

__all__ = ["read_single"]


def read_single(blob: Blob, limits: Limits) -> Iterator[Item]:
    """The whole object; a `Reader`."""
    path = blob.name.rpartition("/")[2]
    if blob.size > limits.item_bytes:
        yield Item(path=path, size=blob.size, reason="too large", detail=f"{blob.size} bytes")
        return
    try:
        with blob.open() as file:
            data = file.read(limits.item_bytes + 1)
    except OSError as error:
        yield Item(path=path, size=blob.size, reason="unreadable", detail=error.strerror or str(error))
        return
    yield Item(path=path, size=len(data), data=data)
