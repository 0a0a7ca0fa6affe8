"""Floor 2, files: what became of every file that a source listed, some thousand at a time, as `files.parquet` has it.

Joins the lines of the ledger with the records that decide them. Knows nothing of how the decisions were made.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from highrise.data.arrays import flags, integers, scalar, strings, values
from highrise.data.decide import EQUAL, KEPT, NEAR, REJECTED, Fates
from highrise.data.ledger import Ledger
from highrise.data.licenses import UNKNOWN
from highrise.data.records import RECORD_SCHEMA, Records

__all__ = ["FILES_SCHEMA", "file_tables"]

FILES_SCHEMA = pa.schema([*RECORD_SCHEMA, ("cluster", pa.int64()), ("split", pa.string())])
_FACTS = ("path", "source", "repository", "own", "size")
_FOUND = tuple(name for name in RECORD_SCHEMA.names if name not in _FACTS)
_NOTHING: dict[str, str | float] = {"quality_parts": "{}", "redactions": "{}", "license": UNKNOWN, "quality": 0.0}
"""What stands in a column of a file that was never cleaned; "" in the others."""


def file_tables(ledger: Ledger, records: Records, fates: Fates | None) -> Iterator[pa.Table]:
    """Tables of `FILES_SCHEMA`; without `fates` nothing was usable."""
    for batch in ledger.batches():
        yield _joined(batch, records, fates)


def _joined(batch: pa.RecordBatch, records: Records, fates: Fates | None) -> pa.Table:
    numbers = values(batch.column("record"))
    cleaned = numbers >= 0
    lines = np.flatnonzero(cleaned)
    place = np.zeros(len(batch), dtype=np.int64)
    place[lines] = np.arange(len(lines))
    found = records.take(numbers[lines], list(_FOUND)).take(integers(place, valid=cleaned))
    columns = {name: batch.column(name) for name in _FACTS}
    for name in _FOUND:
        columns[name] = found.column(name).fill_null(scalar(_NOTHING.get(name, ""))).combine_chunks()
    for name in ("reason", "detail"):
        columns[name] = pc.if_else(flags(cleaned), columns[name], batch.column(name))
    cluster = np.full(len(batch), -1, dtype=np.int64)
    split = np.full(len(batch), "", dtype=object)
    if fates is not None:
        rows = numbers[lines]
        cluster[lines] = fates.cluster[rows]
        equal = values(batch.column("equal"))[lines]
        fate = fates.fate[rows]
        doubled = (equal & (fates.winner[rows] >= 0)) | (fate == EQUAL)
        split[lines[(fate == KEPT) & ~doubled]] = "train"
        split[lines[fates.held[rows] & ~doubled]] = "validation"
        reasons = np.full(len(batch), None, dtype=object)
        reasons[lines[fate == REJECTED]] = "rejected"
        reasons[lines[fate == NEAR]] = "near duplicate"
        reasons[lines[doubled]] = "duplicate"
        details = np.full(len(batch), None, dtype=object)
        beaten = doubled | (fate == NEAR)
        details[lines[beaten]] = _names(records, fates.winner[rows[beaten]])
        columns["reason"] = pc.coalesce(strings(reasons.tolist()), columns["reason"])
        columns["detail"] = pc.coalesce(strings(details.tolist()), columns["detail"])
    columns["cluster"] = integers(cluster)
    columns["split"] = strings(split.tolist())
    return pa.Table.from_arrays([columns[name] for name in FILES_SCHEMA.names], schema=FILES_SCHEMA)


def _names(records: Records, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    """How the data card speaks of a record that stands for another."""
    found = records.take(rows, ["repository", "path"])
    return [
        f"of {repository}/{path}"
        for repository, path in zip(
            found.column("repository").to_pylist(), found.column("path").to_pylist(), strict=True
        )
    ]
