"""Floor 2, texts: tables of texts as people have them, Parquet or JSON lines, for `highrise data dedup`.

Whole tables in memory for now: about the size of the file plus 0.6 kB a text. Knows nothing of how duplicates are
found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.data.duplicates import Duplicates

__all__ = ["check_target", "read_table", "write_kept"]

_JSON = {".jsonl", ".ndjson", ".json"}


def read_table(path: Path, column: str) -> Any:
    """The table in `path`, with a string or binary `column` without nulls (they become empty texts)."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a .parquet or .jsonl file")
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, partitioning=None)
        elif path.suffix in _JSON:
            table = pyarrow.json.read_json(path, pyarrow.json.ReadOptions(block_size=max(path.stat().st_size, 1)))
        else:
            raise InputError(f'{path} ends in "{path.suffix}"; give a .parquet or .jsonl file')
    except pa.ArrowException as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if column not in table.column_names:
        raise InputError(f'{path} has no column "{column}" but {", ".join(table.column_names)}; name one with --column')
    place = table.column_names.index(column)
    texts = table.column(column)
    if not any(
        test(texts.type)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    ):
        raise InputError(f'column "{column}" of {path} has type {texts.type}; name a string or binary column')
    return table.set_column(place, column, texts.fill_null(b"" if "binary" in str(texts.type) else ""))


def check_target(path: Path, source: Path) -> None:
    """`InputError` when `path` has another ending than we write, or is the file that is read."""
    if path.suffix != ".parquet" and path.suffix not in _JSON:
        raise InputError(f'{path} ends in "{path.suffix}"; write to a .parquet or .jsonl file')
    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"{path} is the file that is read; write to another, so that what is removed is not lost")


def write_kept(path: Path, table: Any, found: Duplicates) -> None:
    """The kept rows under `path` (Parquet or JSON lines), and `path.clusters.parquet` with a label for every row."""
    kept = table.filter(pa.array(found.keep))
    with atomic_write(path) as file:
        if path.suffix == ".parquet":
            pq.write_table(kept, file, compression="zstd")
        else:
            import msgspec

            encoder = msgspec.json.Encoder()
            for batch in kept.to_batches(max_chunksize=1024):
                file.write(encoder.encode_lines(batch.to_pylist()))
    labels = pa.table({"row": pa.array(range(len(table)), pa.int64()), "cluster": found.cluster, "keep": found.keep})
    with atomic_write(path.with_name(f"{path.name}.clusters.parquet")) as file:
        pq.write_table(labels, file, compression="zstd")
