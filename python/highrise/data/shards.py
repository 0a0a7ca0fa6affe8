"""Floor 2, shards: documents as zstd Parquet, and back. The columns are the fields of `core.document.Document`.

Every shard appears under its name only when it is whole. Knows nothing of where documents come from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from highrise.core.document import Document
from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.core.manifest import Manifest, read_manifest
from highrise.core.native import rust
from highrise.data.arrays import values

__all__ = [
    "SCHEMA",
    "RowGroups",
    "ShardTexts",
    "data_manifest",
    "read_columns",
    "read_documents",
    "read_tables",
    "shard_paths",
    "table_writer",
    "write_shards",
    "write_table",
]

SCHEMA = pa.schema(
    [
        ("text", pa.large_string()),
        ("path", pa.string()),
        ("source", pa.string()),
        ("repository", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("sha256", pa.string()),
        ("quality", pa.float64()),
        ("own", pa.bool_()),
        ("split", pa.string()),
    ]
)
_ROW_GROUP = 2_000
_HELD_GROUPS = 2


def data_manifest(folder: Path) -> Manifest:
    """The manifest of a data folder; `InputError` for any other folder."""
    manifest = read_manifest(folder)
    if manifest.stage != "data":
        raise InputError(f"{folder} is no data folder; name one made by `highrise data build`")
    return manifest


def write_table(path: Path, table: pa.Table, *, compression: str = "zstd") -> None:
    """One Parquet file, row groups of 2,000 rows; the same table gives the same bytes."""
    with atomic_write(path) as file:
        pq.write_table(table, file, compression=compression, row_group_size=_ROW_GROUP)


def read_columns(path: Path, columns: list[str]) -> pa.Table:
    """Some columns of a Parquet file. `pyarrow.parquet.read_table` imports pandas wherever it is installed."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


@contextlib.contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Write one Parquet file a table at a time; it appears under `path` when the block ends well."""
    with atomic_write(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer.write_table


def write_shards(folder: Path, tables: Iterable[pa.Table], *, shard_bytes: int) -> int:
    """Write `tables` as `folder/shards/NNNNN.parquet` of about `shard_bytes` of text each; returns how many."""
    pending: list[pa.Table] = []
    size = num_shards = 0
    for table in tables:
        table = table.select(SCHEMA.names).cast(SCHEMA)
        ends = np.cumsum(values(pc.binary_length(table.column("text"))))
        start = 0
        while start < len(table):
            before = int(ends[start - 1]) if start else 0
            stop = min(len(table), int(np.searchsorted(ends, before + shard_bytes - size)) + 1)
            pending.append(table.slice(start, stop - start))
            size += int(ends[stop - 1]) - before
            start = stop
            if size >= shard_bytes:
                write_table(folder / "shards" / f"{num_shards:05d}.parquet", pa.concat_tables(pending))
                pending, size, num_shards = [], 0, num_shards + 1
    if pending or not num_shards:
        whole = pa.concat_tables(pending) if pending else SCHEMA.empty_table()
        write_table(folder / "shards" / f"{num_shards:05d}.parquet", whole)
        num_shards += 1
    return num_shards


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a data folder in order; `InputError` when there is none."""
    paths = sorted((folder / "shards").glob("*.parquet"))
    if not paths:
        raise InputError(f"{folder} holds no shards/*.parquet; build it with `highrise data build --out {folder}`")
    return paths


def read_tables(folder: Path, *, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of every shard, one at a time."""
    for path in shard_paths(folder):
        with _opened(path) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=columns)


class RowGroups:
    """The rows of Parquet files by their number, read when asked for; a few row groups are held.

    Raises `InputError` for a file that is damaged.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._groups: list[tuple[Path, int]] = []
        counts = [0]
        for path in paths:
            with _opened(path) as file:
                self._groups += [(path, group) for group in range(file.num_row_groups)]
                counts += [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        self._starts = np.cumsum(counts)
        self._held: dict[tuple[int, tuple[str, ...]], pa.Table] = {}

    def column(self, name: str) -> Iterator[str]:
        """A column of strings of all rows, a row group at a time."""
        for path, group in self._groups:
            with _opened(path) as file:
                yield from file.read_row_group(group, columns=[name]).column(0).to_pylist()

    def row(self, number: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """Some columns of row `number`."""
        place = int(np.searchsorted(self._starts, number, side="right")) - 1
        table = self._held.pop((place, columns), None)
        if table is None:
            path, group = self._groups[place]
            with _opened(path) as file:
                table = file.read_row_group(group, columns=list(columns))
        self._held[place, columns] = table  # the latest stands last
        if len(self._held) > _HELD_GROUPS:
            del self._held[next(iter(self._held))]
        at = number - int(self._starts[place])
        return {name: table.column(name)[at].as_py() for name in columns}


class ShardTexts:
    """The texts of a data folder by their sha256, read when asked for; holds the digests and a few row groups.

    Raises `InputError` for a shard that is damaged.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._rows = RowGroups([] if folder is None else shard_paths(folder))
        self._numbers = rust.data.Numbers()
        for number, digest in enumerate(self._rows.column("sha256")):
            self._numbers.put(bytes.fromhex(digest), number)

    def find(self, sha256: str) -> str | None:
        """The text of this digest, or None."""
        number = self._numbers.find(bytes.fromhex(sha256))
        if number is None:
            return None
        text: str = self._rows.row(number, ("text",))["text"]
        return text


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except pa.ArrowException as error:
        raise InputError(f"{path} is damaged ({error}); delete {path.parents[1]} and build again") from error


def read_documents(folder: Path, *, split: str | None = None, own: bool | None = None) -> Iterator[Document]:
    """The documents of a data folder in their order, all or those of one `split` ("train", "validation") or owner."""
    for table in read_tables(folder):
        for row in table.to_pylist():
            if (split is None or row["split"] == split) and (own is None or row["own"] == own):
                yield Document(**{name: row[name] for name in SCHEMA.names})
