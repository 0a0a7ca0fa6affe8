"""Floor 2, records: what cleaning found out about each different file, without its text, in one mapped file.

Rows are read where they lie, so what is held of them is the operating system's to give back. Knows nothing of how
they are cleaned or decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.files import explain_os_error
from highrise.data.arrays import integers
from highrise.data.clean import CLEAN_SCHEMA
from highrise.data.shards import read_columns

__all__ = ["RECORD_SCHEMA", "Records"]

RECORD_SCHEMA = pa.schema([field for field in CLEAN_SCHEMA if field.name != "text"])
_ROWS = 1 << 14


class Records:
    """The records of all parts in their order; written to `path` when made."""

    def __init__(self, parts: Sequence[Path], path: Path) -> None:
        self.sizes = [pq.read_metadata(part).num_rows for part in parts]
        try:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, RECORD_SCHEMA) as writer:
                for table in _gathered(parts):
                    writer.write_table(table, max_chunksize=_ROWS)
        except OSError as error:
            raise explain_os_error(error, f"writing {path}") from error
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(len(batch) for batch in self._batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def table(self, columns: list[str]) -> pa.Table:
        """Some columns of all rows, where they lie."""
        return pa.Table.from_batches(self._batches, schema=RECORD_SCHEMA).select(columns)

    def take(self, rows: npt.NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Copies of some columns of `rows`, in that order."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        places = np.searchsorted(self._starts, ordered, side="right") - 1
        found = []
        for place in np.unique(places):
            first, last = np.searchsorted(places, [place, place + 1])
            wanted = integers(ordered[first:last] - self._starts[place])
            found.append(self._batches[place].select(columns).take(wanted))
        back = np.empty(len(rows), dtype=np.int64)
        back[order] = np.arange(len(rows))
        schema = pa.schema([RECORD_SCHEMA.field(name) for name in columns])
        return pa.Table.from_batches(found, schema=schema).combine_chunks().take(integers(back))


def _gathered(parts: Sequence[Path]) -> Iterator[pa.Table]:
    """The tables of small parts put together, so that there are few batches."""
    pending: list[pa.Table] = []
    rows = 0
    for part in parts:
        pending.append(read_columns(part, RECORD_SCHEMA.names))
        rows += len(pending[-1])
        if rows >= _ROWS:
            yield pa.concat_tables(pending).combine_chunks()
            pending, rows = [], 0
    if pending:
        yield pa.concat_tables(pending).combine_chunks()
