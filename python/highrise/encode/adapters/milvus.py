"""Floor 3, Milvus: vectors in a collection of a Milvus server, or of Milvus Lite in one local file.

`milvus://HOST:PORT/COLLECTION` (`milvus+https://` with TLS), or `milvus:///FILE.db?collection=NAME`. A server's token
("user:password" or an API key) comes from MILVUS_TOKEN. Knows nothing of chunks or models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from highrise.core.errors import ConfigError, EncodeError
from highrise.encode.store import Floats, StoredRow, StorePlace

__all__ = ["MilvusStore"]

T = TypeVar("T")

_BATCH = 1000
_MOST_FOUND = 16_384
"""What a query gives at most."""
_TIMEOUT = 30.0
_LENGTHS = {"path": 4096, "source": 1024, "language": 64}


class MilvusStore:
    """One collection; reads see every write that went before (consistency "Strong")."""

    def __init__(self, place: StorePlace, *, dimension: int, create: bool) -> None:
        if place.host:
            self._uri = f"{'https' if place.transport == 'https' else 'http'}://{place.host}"
            name = place.path
        else:
            self._uri = place.path if place.path.startswith("./") else f"/{place.path}"
            name = place.options.get("collection", "")
        self._name = place.name(name, what="collection")
        token = os.environ.get("MILVUS_TOKEN", "")
        self._client: Any = self._run(lambda: MilvusClient(uri=self._uri, token=token, timeout=_TIMEOUT))
        if not self._run(lambda: self._client.has_collection(self._name)):
            if not create:
                self.close()
                raise EncodeError(f"{self._uri} has no collection {self._name}; build the index again")
            self._run(lambda: self._create(dimension))
        fields = self._run(lambda: self._client.describe_collection(self._name))["fields"]
        there = {field["name"]: field.get("params", {}).get("dim") for field in fields}
        if "vector" not in there or int(there["vector"]) != dimension:
            self.close()
            raise ConfigError(
                f"the collection {self._name} holds vectors of {there.get('vector')} numbers, the embedder gives "
                f"{dimension}; name another collection"
            )
        self._run(lambda: self._client.load_collection(self._name))

    def _create(self, dimension: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=32)
        for name, length in _LENGTHS.items():
            schema.add_field(name, DataType.VARCHAR, max_length=length)
        schema.add_field("own", DataType.BOOL)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
        index = self._client.prepare_index_params()
        index.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
        self._client.create_collection(self._name, schema=schema, index_params=index, consistency_level="Strong")

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except MilvusException as error:
            raise EncodeError(f"the collection {self._name} in {self._uri}: {error.message or error}") from error

    def ids(self) -> set[str]:
        """Every id that is there; where one answer would not hold all, by their first digits.

        pymilvus has an iterator, but on Milvus Lite it works with errors in the log.
        """
        result: set[str] = set()
        prefixes = [""]
        while prefixes:
            prefix = prefixes.pop()
            found = self._run(
                lambda prefix=prefix: self._client.query(  # type: ignore[misc]
                    self._name,
                    filter=f'id like "{prefix}%"',
                    output_fields=["id"],
                    limit=_MOST_FOUND,
                    consistency_level="Strong",
                )
            )
            if len(found) < _MOST_FOUND:
                result.update(row["id"] for row in found)
            else:
                prefixes += [prefix + digit for digit in "0123456789abcdef"]
        return result

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Add or replace rows, a thousand a request."""
        for start in range(0, len(rows), _BATCH):
            batch = [
                {
                    "id": row.id,
                    "path": _fit(row.path, "path"),
                    "source": _fit(row.source, "source"),
                    "language": _fit(row.language, "language"),
                    "own": row.own,
                    "vector": vectors[start + at].tolist(),
                }
                for at, row in enumerate(rows[start : start + _BATCH])
            ]
            self._run(lambda batch=batch: self._client.upsert(self._name, batch))  # type: ignore[misc]
            advance(len(batch))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        for start in range(0, len(ids), _BATCH):
            batch = list(ids[start : start + _BATCH])
            self._run(lambda batch=batch: self._client.delete(self._name, ids=batch))  # type: ignore[misc]

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        """Ids of the nearest rows, best first."""
        wanted = []
        if languages is not None:
            wanted.append(f"language in {msgspec.json.encode(list(languages)).decode()}")
        if own is not None:
            wanted.append(f"own == {str(own).lower()}")
        found = self._run(
            lambda: self._client.search(
                self._name,
                data=[vector.tolist()],
                anns_field="vector",
                limit=limit,
                filter=" and ".join(wanted),
                output_fields=["id"],
                consistency_level="Strong",
            )
        )
        return [str(hit["id"]) for hit in found[0]]

    def count(self) -> int:
        """How many rows are there."""
        answer = self._run(
            lambda: self._client.query(self._name, output_fields=["count(*)"], consistency_level="Strong")
        )
        return int(answer[0]["count(*)"])

    def close(self) -> None:
        """Let go of the connection, or of the file."""
        self._client.close()


def _fit(text: str, field: str) -> str:
    """A text that the field holds: Milvus counts bytes, and no lone surrogate can be sent."""
    return text.encode("utf-8", "replace")[: _LENGTHS[field]].decode("utf-8", "ignore")
