"""Floor 2, cut: a table without the spans or lines that repeat in it, and a report of them.

Knows nothing of how repeats are found.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.errors import InputError
from highrise.core.files import atomic_write, explain_os_error
from highrise.core.progress import Progress
from highrise.data.arrays import strings
from highrise.data.repeats import FrequentLines, LineCounter, Places, Spans, cut, repeated_spans
from highrise.data.tables import Batch, Table, kept_writer

__all__ = ["cut_lines", "cut_spans"]

_MEMORY = 1 << 24


def cut_spans(table: Table, target: Path, *, min_bytes: int, memory: int) -> dict[str, int]:
    """Write `table` without what stood in it before, and `target.spans.parquet` with what was cut.

    The texts lie in a mapped file beside `target` meanwhile; what is kept of them takes `memory` bytes at most, about.
    Returns counts.
    """
    with _spilled(table, target.with_name(f"{target.name}.spans-work")) as texts:
        found = repeated_spans(texts, min_bytes=min_bytes, memory=memory)
        num_texts = len(texts)
    return _cut(table, target, found, num_texts)


@contextlib.contextmanager
def _spilled(table: Table, path: Path) -> Iterator[pa.ChunkedArray]:
    """The texts of `table` as a column that lies in a file of its own, which is removed in the end."""
    schema = pa.schema([("text", pa.large_string())])
    try:
        with (
            Progress("reading texts", unit="B", total=table.text_bytes()) as progress,
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            for batch in table.batches(memory=_MEMORY):
                column = strings(batch.texts, pa.large_string()) if isinstance(batch.texts, list) else batch.texts
                writer.write_table(pa.table([column.cast(pa.large_string())], schema=schema))
                progress.advance(batch.size)
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            yield reader.read_all().column(0)
    except OSError as error:
        raise explain_os_error(error, f"writing {path}") from error
    finally:
        path.unlink(missing_ok=True)


def _cut(table: Table, target: Path, found: Spans, num_texts: int) -> dict[str, int]:
    starts = np.searchsorted(found.text, np.arange(num_texts + 1))

    def of_batch(batch: Batch) -> Spans:
        first, last = starts[batch.first_row], starts[batch.first_row + len(batch.absent)]
        return Spans(
            text=found.text[first:last] - batch.first_row,
            start=found.start[first:last],
            end=found.end[first:last],
            first_text=found.first_text[first:last],
            first_start=found.first_start[first:last],
        )

    report = target.with_name(f"{target.name}.spans.parquet")
    with atomic_write(report) as file:
        columns = {name: getattr(found, name) for name in ("text", "start", "end", "first_text", "first_start")}
        pq.write_table(pa.table(columns), file, compression="zstd")
    _write(table, target, ((batch, of_batch(batch)) for batch in table.batches(memory=_MEMORY, whole=True)), num_texts)
    return {"texts": num_texts, "spans": len(found.text), "bytes_cut": found.bytes}


def cut_lines(table: Table, target: Path, *, more_than: int, min_bytes: int, threads: int) -> dict[str, int]:
    """Write `table` without the lines that stand in more than `more_than` texts, and `target.lines.parquet` with each
    such line and the number of texts it stands in.

    Reads the table twice and holds only the counts. Returns counts.
    """
    counter = LineCounter(min_bytes=min_bytes, threads=threads)
    rows = 0
    with Progress("counting lines", unit="B", total=table.text_bytes()) as progress:
        for batch in table.batches(memory=_MEMORY):
            counter.add(batch.texts)
            rows += len(batch.absent)
            progress.advance(batch.size)
    lines = counter.finish(more_than=more_than)
    examples: dict[bytes, int] = {}
    counts = {"texts": rows, "lines": lines, "places": 0, "bytes_cut": 0}

    def found() -> Iterator[tuple[Batch, FrequentLines]]:
        for batch in table.batches(memory=_MEMORY, whole=True):
            places = counter.find(batch.texts, more_than=more_than)
            counts["places"] += len(places.text)
            counts["bytes_cut"] += places.bytes
            _remember(examples, batch, places)
            yield batch, places

    _write(table, target, found(), rows)
    ordered = sorted(examples.items(), key=lambda item: (-item[1], item[0]))
    with atomic_write(target.with_name(f"{target.name}.lines.parquet")) as file:
        columns = {
            "line": [line.decode("utf-8", "replace") for line, _ in ordered],
            "texts": pa.array([number for _, number in ordered], pa.int64()),
        }
        pq.write_table(pa.table(columns), file, compression="zstd")
    return counts


def _remember(examples: dict[bytes, int], batch: Batch, places: FrequentLines) -> None:
    for text, group in itertools.groupby(zip(places.text, places.start, places.end, places.texts, strict=True), _first):
        whole = batch.texts[int(text)]
        whole = whole if isinstance(whole, (str, bytes)) else whole.as_py()
        encoded = whole.encode() if isinstance(whole, str) else whole
        for _, start, end, number in group:
            examples.setdefault(encoded[start:end].strip(), int(number))


def _first(place: tuple[Any, ...]) -> Any:
    return place[0]


def _write(table: Table, target: Path, batches: Iterable[tuple[Batch, Places]], rows: int) -> None:
    """Write every row with what is left of its text."""
    with Progress("writing", unit="texts", total=rows) as progress, atomic_write(target) as file:
        write, finish = kept_writer(file, target, table)
        written = 0
        for batch, found in batches:
            write(_replace(batch, cut(batch.texts, found), table.column))
            written += len(batch.absent)
            progress.advance(len(batch.absent))
        if written != rows:
            raise InputError(f"{table.path} has changed while it was read; start again")
        finish()


def _replace(batch: Batch, left: list[Any], column: str) -> Any:
    """The rows of a batch with other texts; an absent one stays absent."""
    if isinstance(batch.rows, list):
        lines = []
        for line, text, absent in zip(batch.rows, left, batch.absent, strict=True):
            if not absent:
                row = msgspec.json.decode(line)
                row[column] = text
                line = msgspec.json.encode(row) + b"\n"
            lines.append(line if line.endswith(b"\n") else line + b"\n")
        return lines
    place = batch.rows.schema.get_field_index(column)
    field = batch.rows.schema.field(place)
    values = [None if absent else text for text, absent in zip(left, batch.absent, strict=True)]
    return batch.rows.set_column(place, field, pa.array(values, field.type))
