"""Floor 3, Pinecone: vectors in one namespace of a serverless index, over its REST API of 2025-10.

`pinecone://INDEX/NAMESPACE` looks up the index's host; `?cloud=aws&region=us-east-1` makes the index when it is not
there, which may cost money. The key comes from PINECONE_API_KEY. `pinecone+http://HOST:PORT/INDEX/NAMESPACE` speaks to
a local emulator. What the service shows lags some seconds behind what it was sent. Knows nothing of chunks or models.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from highrise.core.errors import ConfigError, EncodeError, InputError
from highrise.encode.adapters.rest import Rest
from highrise.encode.store import Floats, StoredRow, StorePlace

__all__ = ["PineconeStore"]

_VERSION = "2025-10"
_CONTROL = "https://api.pinecone.io"
_KEY = "PINECONE_API_KEY"
_MOST_ROWS = 1000
_MOST_BYTES = 2_000_000
"""Of one upsert request: 2 MB by the documentation, taken as the smaller of its two readings."""
_PAGE = "100"
_READY_SECONDS = 120.0
_POLL_SECONDS = 1.0
_METADATA_BYTES = 2048
_INDEX_NAME = r"[a-z0-9][a-z0-9-]{0,44}"


class PineconeStore:
    """One namespace of one index."""

    def __init__(self, place: StorePlace, *, dimension: int, create: bool) -> None:
        key = os.environ.get(_KEY, "")
        if not key:
            raise InputError(f"{place.url} needs a key; put it into the environment variable {_KEY}")
        self._headers = {"Api-Key": key, "X-Pinecone-Api-Version": _VERSION}
        names = [place.host, *place.path.split("/")] if not place.transport else place.path.split("/")
        self._index = place.name(names[0], what="Pinecone index", pattern=_INDEX_NAME)
        self._namespace = "/".join(names[1:]) or "__default__"
        base = f"{place.transport}://{place.host}" if place.transport else _CONTROL
        control = Rest(base, self._headers, key_variable=_KEY)
        try:
            described = self._describe(control, place, dimension, create)
        finally:
            control.close()
        if described["dimension"] != dimension:
            raise ConfigError(
                f"the index {self._index} holds vectors of {described['dimension']} numbers, the embedder gives "
                f"{dimension}; name another index"
            )
        if described["metric"] == "euclidean":
            raise ConfigError(
                f"the index {self._index} compares by distance; it must be made with cosine or dotproduct"
            )
        host = described["host"]
        self._rest = Rest(
            host if "://" in host else f"{place.transport or 'https'}://{host}", self._headers, key_variable=_KEY
        )

    def _describe(self, control: Rest, place: StorePlace, dimension: int, create: bool) -> Any:
        status, described = control.ask("GET", f"/indexes/{self._index}", accept=(404,))
        if status == 404:
            if not create:
                raise EncodeError(f"there is no Pinecone index {self._index}; build the index again")
            cloud, region = place.options.get("cloud"), place.options.get("region")
            if not (cloud and region):
                raise ConfigError(
                    f"there is no Pinecone index {self._index}; make one with {dimension} dimensions and the metric "
                    "cosine, or add ?cloud=aws&region=us-east-1 to index.store to have it made"
                )
            body = {
                "name": self._index,
                "dimension": dimension,
                "metric": "cosine",
                "spec": {"serverless": {"cloud": cloud, "region": region}},
            }
            _, described = control.ask("POST", "/indexes", body)
        until = time.monotonic() + _READY_SECONDS
        while not described["status"]["ready"]:
            if time.monotonic() > until:
                raise EncodeError(f"the Pinecone index {self._index} was not ready after {_READY_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
            _, described = control.ask("GET", f"/indexes/{self._index}")
        return described

    def ids(self) -> set[str]:
        """Every id that is there, a hundred a request (the service gives no more)."""
        result: set[str] = set()
        parameters = {"namespace": self._namespace, "limit": _PAGE}
        while True:
            status, page = self._rest.ask("GET", "/vectors/list", parameters=parameters, accept=(404,))
            if status == 404:  # a namespace appears with its first row
                return result
            result.update(item["id"] for item in page.get("vectors") or ())
            following = (page.get("pagination") or {}).get("next")
            if not following:
                return result
            parameters["paginationToken"] = following

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Add or replace rows; a request holds at most 1,000 of them and 2 MB."""
        parts: list[bytes] = []
        size = 0

        def send() -> None:
            nonlocal size
            body = b'{"namespace":%b,"vectors":[%b]}' % (msgspec.json.encode(self._namespace), b",".join(parts))
            self._rest.ask("POST", "/vectors/upsert", body)
            advance(len(parts))
            parts.clear()
            size = 0

        for row, vector in zip(rows, vectors, strict=True):
            part = _row(row, vector)
            if parts and (len(parts) == _MOST_ROWS or size + len(part) > _MOST_BYTES - 1000):
                send()
            parts.append(part)
            size += len(part) + 1
        if parts:
            send()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows, 1,000 a request."""
        for start in range(0, len(ids), _MOST_ROWS):
            body = {"ids": list(ids[start : start + _MOST_ROWS]), "namespace": self._namespace}
            self._rest.ask("POST", "/vectors/delete", body, accept=(404,))

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        """Ids of the nearest rows, best first."""
        body: dict[str, object] = {
            "vector": _numbers(vector),
            "topK": limit,
            "namespace": self._namespace,
            "includeValues": False,
            "includeMetadata": False,
        }
        wanted: list[dict[str, object]] = []
        if languages is not None:
            wanted.append({"language": {"$in": list(languages)}})
        if own is not None:
            wanted.append({"own": {"$eq": own}})
        if wanted:
            body["filter"] = {"$and": wanted}
        _, answer = self._rest.ask("POST", "/query", body)
        return [match["id"] for match in answer.get("matches") or ()]

    def count(self) -> int:
        """How many rows the service says are there; it lags behind."""
        _, answer = self._rest.ask("POST", "/describe_index_stats", {})
        spaces = answer.get("namespaces") or {}
        names = (self._namespace, "") if self._namespace == "__default__" else (self._namespace,)
        return sum(int(spaces[name].get("vectorCount", 0)) for name in names if name in spaces)

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()


def _row(row: StoredRow, vector: Floats) -> bytes:
    return msgspec.json.encode(
        {
            "id": row.id,
            "values": _numbers(vector),
            "metadata": {
                "path": _fit(row.path),
                "source": _fit(row.source),
                "language": row.language,
                "own": row.own,
            },
        }
    )


def _numbers(vector: Floats) -> list[float]:
    """Seven digits, which is all that 32 bits hold: a third of the bytes that doubles would take."""
    return [float(f"{value:.7g}") for value in vector.tolist()]


def _fit(text: str) -> str:
    """Metadata may have 40 kB a row in all; a path never needs them."""
    return text.encode("utf-8", "replace")[:_METADATA_BYTES].decode("utf-8", "ignore")
