"""Floor 3, pgvector: vectors in a table of PostgreSQL, 16 bits a number, found over an HNSW graph.

`postgresql://USER@HOST:PORT/DATABASE?table=NAME`; all else behind the question mark goes to libpq (sslmode, ...),
which takes the password from PGPASSWORD or ~/.pgpass. The graph is made after the first rows, which is several times
faster than growing it. Knows nothing of chunks or models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

import numpy as np
import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types import TypeInfo

from highrise.core.errors import ConfigError, EncodeError
from highrise.encode.store import Floats, StoredRow, StorePlace

__all__ = ["PgVectorStore"]

T = TypeVar("T")

_BATCH = 1000
_CONNECT_SECONDS = 5
_SEARCH_BREADTH = 100
_MOST_BREADTH = 1000
"""The largest `hnsw.ef_search` that pgvector takes."""
_OLDEST = (0, 8)
"""Older versions stop after a filter has emptied the first `ef_search` rows."""


class _Half(bytes):
    """A vector as `halfvec` travels: two counts of 16 bits, then the numbers, all big-endian."""

    @classmethod
    def of(cls, vector: Floats) -> _Half:
        return cls(np.array([len(vector), 0], ">i2").tobytes() + vector.astype(">f2").tobytes())


class _HalfDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Half) -> bytes:
        return bytes(obj)


class PgVectorStore:
    """One table. A lost connection is made anew once; then it is an error."""

    def __init__(self, place: StorePlace, *, dimension: int, create: bool) -> None:
        options = dict(place.options)
        self._name = place.name(options.pop("table", ""), what="table, as ?table=NAME")
        self._table = sql.Identifier(self._name)
        self._dimension = dimension
        user = f"{place.user}@" if place.user else ""
        self._address = f"postgresql://{user}{place.host}/{place.path}" + (f"?{urlencode(options)}" if options else "")
        self._lock = threading.RLock()
        self._connection = self._connect()
        if create:
            self._run(self._create)
        self._check()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection = psycopg.connect(
                self._address,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="highrise",
                client_encoding="utf-8",  # a database of SQL_ASCII would give bytes
            )
        except psycopg.Error as error:
            raise EncodeError(f"cannot connect to {self._address}: {_words(error)}") from error
        self._teach(connection)
        # For the session: three statements around each query would cost more than the query.
        connection.execute("SET hnsw.iterative_scan = strict_order")
        connection.execute(sql.SQL("SET hnsw.ef_search = {}").format(sql.Literal(_SEARCH_BREADTH)))
        return connection

    def _teach(self, connection: psycopg.Connection[Any]) -> None:
        """Tell the connection how a `halfvec` is written, once the extension is there."""
        if (info := TypeInfo.fetch(connection, "halfvec")) is not None:
            dumper = type("_DumperOfHere", (_HalfDumper,), {"oid": info.oid})
            connection.adapters.register_dumper(_Half, dumper)

    def _run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        with self._lock:
            for again in (False, True):
                try:
                    if self._connection.closed:
                        self._connection = self._connect()
                    return work(self._connection)
                except psycopg.Error as error:
                    if again or not self._connection.broken:
                        raise EncodeError(f"the table {self._name} in {self._address}: {_words(error)}") from error
        raise AssertionError("unreachable")

    def _create(self, connection: psycopg.Connection[Any]) -> None:
        if self._version(connection) is None:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            self._teach(connection)
        connection.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (id text PRIMARY KEY, path text NOT NULL, source text NOT NULL, "
                "language text NOT NULL, own boolean NOT NULL, vector halfvec({}) NOT NULL)"
            ).format(self._table, sql.Literal(self._dimension))
        )

    def _version(self, connection: psycopg.Connection[Any]) -> str | None:
        row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        return None if row is None else str(row[0])

    def _check(self) -> None:
        version = self._run(self._version)
        if version is None:
            raise EncodeError(f"{self._address} has no extension vector; build the index, or ask who runs the server")
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise EncodeError(f"{self._address} has pgvector {version}; at least 0.8 is needed")
        row = self._run(
            lambda connection: connection.execute(
                "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'vector'",
                [f'"{self._name}"'],
            ).fetchone()
        )
        if row is None:
            raise EncodeError(f"{self._address} has no table {self._name} of an index; build the index again")
        if row[0] != self._dimension:
            raise ConfigError(
                f"the table {self._name} holds vectors of {row[0]} numbers, the embedder gives {self._dimension}; "
                "name another table"
            )

    def ids(self) -> set[str]:
        """Every id that is there."""
        statement = sql.SQL("SELECT id FROM {}").format(self._table)
        return self._run(lambda connection: {row[0] for row in connection.execute(statement)})

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        """Add or replace rows, in transactions of a thousand; then make the graph if there is none."""
        statement = sql.SQL(
            "INSERT INTO {} (id, path, source, language, own, vector) VALUES (%s, %s, %s, %s, %s, %b) "
            "ON CONFLICT (id) DO UPDATE SET path = excluded.path, source = excluded.source, "
            "language = excluded.language, own = excluded.own, vector = excluded.vector"
        ).format(self._table)

        def send(connection: psycopg.Connection[Any], start: int) -> None:
            batch = [
                (row.id, _clean(row.path), _clean(row.source), row.language, row.own, _Half.of(vectors[start + at]))
                for at, row in enumerate(rows[start : start + _BATCH])
            ]
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, batch)

        for start in range(0, len(rows), _BATCH):
            self._run(lambda connection, start=start: send(connection, start))  # type: ignore[misc]
            advance(len(rows[start : start + _BATCH]))
        index = sql.Identifier(f"{self._name}_vector")
        statement = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector halfvec_ip_ops)").format(
            index, self._table
        )
        self._run(lambda connection: connection.execute(statement))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove rows."""
        statement = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table)
        self._run(lambda connection: connection.execute(statement, [list(ids)]))

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        """Ids of the nearest rows, best first; with a filter the graph is walked until there are enough."""
        wanted: list[sql.Composable] = []
        values: list[object] = []
        if languages is not None:
            wanted.append(sql.SQL("language = ANY(%s)"))
            values.append(list(languages))
        if own is not None:
            wanted.append(sql.SQL("own = %s"))
            values.append(own)
        where = sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(wanted)) if wanted else sql.SQL("")
        statement = sql.SQL("SELECT id FROM {}{} ORDER BY vector <#> %b LIMIT %s").format(self._table, where)
        parameters = [*values, _Half.of(vector), limit]

        def ask(connection: psycopg.Connection[Any]) -> list[str]:
            if limit <= _SEARCH_BREADTH:
                return [row[0] for row in connection.execute(statement, parameters)]
            breadth = sql.Literal(min(limit, _MOST_BREADTH))
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(breadth))
                return [row[0] for row in connection.execute(statement, parameters)]

        return self._run(ask)

    def count(self) -> int:
        """How many rows are there."""
        statement = sql.SQL("SELECT count(*) FROM {}").format(self._table)
        row = self._run(lambda connection: connection.execute(statement).fetchone())
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def _clean(text: str) -> str:
    """PostgreSQL holds no NUL, and no lone surrogate can be sent."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _words(error: Exception) -> str:
    """The first line of what the server says."""
    return str(error).strip().split("\n")[0] or type(error).__name__
