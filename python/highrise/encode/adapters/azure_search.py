"""Floor 3, Azure AI Search: vectors in one index of a search service, over its REST API of 2024-07-01.

`azure-search://SERVICE.search.windows.net/INDEX`; the admin key comes from AZURE_SEARCH_API_KEY, for searching alone a
query key does. The index is made when it is not there. Rows can be found some seconds after they were sent. Knows
nothing of chunks or models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from highrise.core.errors import ConfigError, EncodeError, InputError
from highrise.encode.adapters.rest import Rest
from highrise.encode.store import Floats, StoredRow, StorePlace

__all__ = ["AzureSearchStore"]

_VERSION = {"api-version": "2024-07-01"}
_KEY = "AZURE_SEARCH_API_KEY"
_MOST_ROWS = 1000
_MOST_BYTES = 16_000_000
_TRIES = 4
"""How often rows that the service was too busy for are sent."""
_INDEX_NAME = r"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])"
_BUSY = (409, 422, 429, 503)
"""Statuses of one row, inside an answer of 207, that mean: send it again."""


class AzureSearchStore:
    """One index."""

    def __init__(self, place: StorePlace, *, dimension: int, create: bool) -> None:
        key = os.environ.get(_KEY, "")
        if not key:
            raise InputError(f"{place.url} needs a key; put it into the environment variable {_KEY}")
        self._index = place.name(place.path, what="search index", pattern=_INDEX_NAME)
        self._path = f"/indexes('{self._index}')"
        self._rest = Rest(f"{place.transport or 'https'}://{place.host}", {"api-key": key}, key_variable=_KEY)
        self._dimension = dimension
        if create:
            self._make_sure()

    def _make_sure(self) -> None:
        """Make the index, or see that the one that is there has our fields."""
        status, there = self._rest.ask("GET", self._path, parameters=_VERSION, accept=(404,))
        if status == 404:
            self._rest.ask("PUT", self._path, _schema(self._index, self._dimension), parameters=_VERSION)
            return
        fields = {field["name"]: field for field in there["fields"]}
        found = fields.get("vector", {}).get("dimensions")
        if found != self._dimension or not {"id", "language", "own"} <= fields.keys():
            raise ConfigError(
                f"the index {self._index} has the fields {', '.join(sorted(fields))} and vectors of {found} numbers, "
                f"the embedder gives {self._dimension}; name another index"
            )

    def ids(self) -> set[str]:
        """Every id that is there, by ranges of the key: skipping ends at 100,000."""
        result: set[str] = set()
        last = ""
        while True:
            body = {"search": "*", "select": "id", "orderby": "id asc", "top": _MOST_ROWS}
            if last:
                body["filter"] = f"id gt '{last}'"
            found = [item["id"] for item in self._search(body)]
            result.update(found)
            if len(found) < _MOST_ROWS:
                return result
            last = found[-1]

    def _search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        _, answer = self._rest.ask("POST", f"{self._path}/docs/search.post.search", body, parameters=_VERSION)
        found: list[dict[str, Any]] = answer["value"]
        return found

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Add or replace rows; a request holds at most 1,000 of them and 16 MB. Refused rows are sent again."""
        parts: dict[str, bytes] = {}
        size = 0
        for row, vector in zip(rows, vectors, strict=True):
            part = _document(row, vector)
            if parts and (len(parts) == _MOST_ROWS or size + len(part) > _MOST_BYTES - 1000):
                self._index_documents(parts)
                advance(len(parts))
                parts, size = {}, 0
            parts[row.id] = part
            size += len(part) + 1
        if parts:
            self._index_documents(parts)
            advance(len(parts))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows, 1,000 a request."""
        for start in range(0, len(ids), _MOST_ROWS):
            self._index_documents(
                {
                    id: msgspec.json.encode({"@search.action": "delete", "id": id})
                    for id in ids[start : start + _MOST_ROWS]
                }
            )

    def _index_documents(self, parts: dict[str, bytes]) -> None:
        left = parts
        for _ in range(_TRIES):
            body = b'{"value":[%b]}' % b",".join(left.values())
            _, answer = self._rest.ask("POST", f"{self._path}/docs/search.index", body, parameters=_VERSION)
            refused = [item for item in answer["value"] if not item["status"]]
            lasting = [item for item in refused if item["statusCode"] not in _BUSY]
            if lasting:
                raise EncodeError(
                    f"{self._rest.base} refused {len(lasting)} rows of the index {self._index}, the first with "
                    f"{lasting[0]['statusCode']}: {lasting[0]['errorMessage']}"
                )
            left = {item["key"]: left[item["key"]] for item in refused}
            if not left:
                return
        raise EncodeError(
            f"{self._rest.base} was too busy for {len(left)} rows of the index {self._index} in {_TRIES} tries; "
            "start again later, what it has is kept"
        )

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        """Ids of the nearest rows, best first; the filter is applied before neighbours are looked for."""
        query = {"kind": "vector", "vector": vector.tolist(), "fields": "vector", "k": limit}
        body: dict[str, Any] = {"vectorQueries": [query], "select": "id", "top": limit}
        wanted = []
        if languages is not None:
            wanted.append("(" + (" or ".join(f"language eq {_quoted(name)}" for name in languages) or "false") + ")")
        if own is not None:
            wanted.append(f"own eq {str(own).lower()}")
        if wanted:
            body["filter"] = " and ".join(wanted)
            body["vectorFilterMode"] = "preFilter"
        return [item["id"] for item in self._search(body)]

    def count(self) -> int:
        """How many rows the service says are there; it lags behind."""
        _, answer = self._rest.ask("GET", f"{self._path}/docs/$count", parameters=_VERSION)
        return int(answer)

    def close(self) -> None:
        """Close the connections."""
        self._rest.close()


def _schema(name: str, dimension: int) -> dict[str, Any]:
    def text(field: str, **options: bool) -> dict[str, Any]:
        return {"name": field, "type": "Edm.String", "searchable": False, "facetable": False, **options}

    return {
        "name": name,
        "fields": [
            text("id", key=True, filterable=True, sortable=True),
            text("path", filterable=True, sortable=False),
            text("source", filterable=True, sortable=False),
            text("language", filterable=True, sortable=False),
            {"name": "own", "type": "Edm.Boolean", "filterable": True, "sortable": False, "facetable": False},
            {
                "name": "vector",
                "type": "Collection(Edm.Single)",
                "searchable": True,
                "retrievable": False,
                "stored": False,
                "dimensions": dimension,
                "vectorSearchProfile": "nearest",
            },
        ],
        "vectorSearch": {
            "profiles": [{"name": "nearest", "algorithm": "graph"}],
            "algorithms": [{"name": "graph", "kind": "hnsw", "hnswParameters": {"metric": "cosine"}}],
        },
    }


def _document(row: StoredRow, vector: Floats) -> bytes:
    return msgspec.json.encode(
        {
            "@search.action": "upload",
            "id": row.id,
            "path": _sent(row.path),
            "source": _sent(row.source),
            "language": row.language,
            "own": row.own,
            "vector": vector.tolist(),
        }
    )


def _quoted(text: str) -> str:
    """A text inside a filter: an apostrophe is written twice (OData)."""
    return "'" + text.replace("'", "''") + "'"


def _sent(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
