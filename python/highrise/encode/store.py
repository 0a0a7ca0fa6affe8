"""Floor 3, vector store: what a place outside the index folder must do to keep an index's vectors, and how it is named.

A store is named by a URL whose scheme says what it is: `postgresql://me@db/code?table=team`. Our own are found in the
table below, those of other packages through the entry-point group `highrise.adapters` by the name `store-SCHEME`.
Passwords and keys never stand in the URL. Knows no store, no chunks and no model.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import ConfigError, EncodeError

__all__ = ["EMBEDDED", "StorePlace", "StoredRow", "VectorStore", "open_store", "read_place", "store_names"]

EMBEDDED = "faiss"
"""The store that lies inside the index folder and needs no server."""

Floats = npt.NDArray[np.float32]

_GROUP = "highrise.adapters"
_PREFIX = "store-"
_OWN = {
    "postgresql": "highrise.encode.adapters.pgvector:PgVectorStore",
    "milvus": "highrise.encode.adapters.milvus:MilvusStore",
    "pinecone": "highrise.encode.adapters.pinecone:PineconeStore",
    "azure-search": "highrise.encode.adapters.azure_search:AzureSearchStore",
}


class StoredRow(msgspec.Struct, frozen=True):
    """What a store keeps beside a vector: enough to filter by, and to tell a person where it comes from."""

    id: str
    """32 hexadecimal digits that change with anything of the row and with the model."""
    path: str
    source: str
    language: str
    own: bool


class StorePlace(msgspec.Struct, frozen=True):
    """A store's URL taken apart."""

    url: str
    kind: str
    """The scheme up to a plus sign: "milvus" of `milvus+https://...`."""
    transport: str
    """What stands behind the plus sign, or nothing."""
    host: str
    """With the port when one is given."""
    user: str
    path: str
    """Without the slash in front."""
    options: dict[str, str]
    """What stands behind the question mark."""

    def name(self, value: str, *, what: str, pattern: str = r"[A-Za-z_][A-Za-z0-9_]{0,47}") -> str:
        """`value` when it can be the name of a table, collection or index; else an error that says which is wanted."""
        if not re.fullmatch(pattern, value):
            given = f'"{value}" is no such name' if value else "it is missing"
            raise ConfigError(f'index.store = "{self.url}" must name a {what} ({given}; it must match {pattern})')
        return value


class VectorStore(Protocol):
    """Vectors by id, with what they may be filtered by. Made as `Store(place, dimension=..., create=...)`.

    With `create` the place where rows go is made when it is not there; without it that is an `EncodeError`. A store
    whose rows have another dimension is a `ConfigError`. Every method may be called from many threads; what the server
    refuses or a lost connection is an `EncodeError` of one sentence.
    """

    def ids(self) -> set[str]:
        """Every id that is there."""

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Add rows or replace those with the same id; `vectors` is (len(rows), dimension), rows of length one.

        Goes in batches of the store's own choosing; `advance` hears how many more are there for good.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows; an id that is not there is no mistake."""

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        """Ids of the rows nearest by inner product, best first, at most `limit`, of these languages and sources."""

    def count(self) -> int:
        """How many rows are there; may lag behind where the service says so."""

    def close(self) -> None:
        """Let go of the connection."""


def store_names() -> tuple[str, ...]:
    """Every scheme that can be named, our own first."""
    return tuple({**_OWN, **_foreign()})


def read_place(url: str) -> StorePlace:
    """Take a store's URL apart; `ConfigError` for an unknown scheme and for a secret inside."""
    try:
        parts = urlsplit(url)
        kind, _, transport = parts.scheme.partition("+")
        place = StorePlace(
            url=url,
            kind=kind,
            transport=transport,
            host=parts.netloc.rpartition("@")[2],
            user=parts.username or "",
            path=parts.path.removeprefix("/"),
            options=dict(parse_qsl(parts.query, keep_blank_values=True)),
        )
    except ValueError as error:
        raise ConfigError(f'index.store = "{url}" is no address ({error})') from error
    if parts.password is not None or {"password", "key", "token", "api_key", "api-key"} & place.options.keys():
        variable = {"postgresql": "PGPASSWORD", "milvus": "MILVUS_TOKEN", "pinecone": "PINECONE_API_KEY"}.get(
            kind, "AZURE_SEARCH_API_KEY"
        )
        raise ConfigError(f"index.store holds a secret; leave it out of the address and put it into {variable}")
    if kind not in store_names():
        raise ConfigError(
            f'index.store = "{url}" names no store; write "{EMBEDDED}" or an address that begins with '
            + ", ".join(f"{name}://" for name in store_names())
        )
    return place


def open_store(url: str, *, dimension: int, create: bool) -> VectorStore:
    """Connect to the store at `url`, for vectors of `dimension` numbers."""
    place = read_place(url)
    module, _, attribute = {**_foreign(), **_OWN}[place.kind].partition(":")
    try:
        made: VectorStore = getattr(importlib.import_module(module), attribute)(
            place, dimension=dimension, create=create
        )
    except ImportError as error:
        raise EncodeError(
            f"the store {place.kind} needs a package that is not installed ({error}); install highrise[stores], for "
            "Milvus highrise[milvus]"
        ) from error
    return made


def _foreign() -> dict[str, str]:
    return {
        point.name.removeprefix(_PREFIX): point.value
        for point in entry_points(group=_GROUP)
        if point.name.startswith(_PREFIX)
    }
