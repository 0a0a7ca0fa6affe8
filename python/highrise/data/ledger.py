"""Floor 2, ledger: one line for each file that a source listed, whether or not it had to be cleaned.

Points from a file to the cleaned record that decides it: its own, or that of an equal file before it. Lies in a file;
only the latest lines are held. Knows nothing of how files are read or cleaned.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from highrise.core.files import explain_os_error
from highrise.data.arrays import array_of

__all__ = ["Ledger"]

_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source", pa.string()),
        ("repository", pa.string()),
        ("own", pa.bool_()),
        ("size", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("record", pa.int64()),
        ("equal", pa.bool_()),
    ]
)
_LINES = 4096


class Ledger:
    """Grows by a line a file; begun anew by every run. A context manager, which ends the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[tuple[object, ...]] = []
        self._count = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pa.ipc.new_stream(pa.OSFile(str(path), "wb"), _SCHEMA)
        except OSError as error:
            raise explain_os_error(error, f"writing {path}") from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def __len__(self) -> int:
        return self._count

    def add(
        self,
        *,
        path: str,
        source: str,
        repository: str,
        own: bool,
        size: int,
        reason: str = "",
        detail: str = "",
        record: int = -1,
        equal: bool = False,
    ) -> None:
        """A line: decided already by `reason`, or by cleaned record number `record`, whose bytes it equals if
        `equal`.
        """
        self._lines.append((path, source, repository, own, size, reason, detail, record, equal))
        self._count += 1
        if len(self._lines) == _LINES:
            self._flush()

    def _flush(self) -> None:
        columns = list(zip(*self._lines, strict=True)) or [() for _ in _SCHEMA]
        arrays = [array_of(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        self._lines.clear()
        try:
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
        except OSError as error:
            raise explain_os_error(error, f"writing {self._path}") from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The lines in their order, some thousand at a time, after the ledger was ended."""
        with pa.OSFile(str(self._path), "rb") as file, pa.ipc.open_stream(file) as reader:
            yield from reader
