"""Floor 3, tables: the texts of JSONL and Parquet files, row by row. Knows nothing of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from highrise.core.errors import InputError

__all__ = ["TABLES", "read_table"]

TABLES = (".jsonl", ".ndjson", ".parquet")
"""Endings of files that hold a text a row."""


def read_table(path: Path, field: str) -> Iterator[str]:
    """The text in `field` of each row; a row without one is an error with its place."""
    yield from (_parquet if path.suffix == ".parquet" else _lines)(path, field)


def _lines(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = msgspec.json.decode(line)
                text = row.get(field) if isinstance(row, dict) else None
                if not isinstance(text, str):
                    raise InputError(f"{path}, line {number} has no text under {field!r}; name the field with --field")
                yield text
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}, line {number} is no JSON: {error}") from error


def _parquet(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if field not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path} has no column {field!r}; it has {names}; name one with --field")
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[field]):
                for text in batch.column(0).to_pylist():
                    if not isinstance(text, str):
                        raise InputError(f"{path}, row {row} has no text in the column {field!r}")
                    yield text
                    row += 1
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from error
