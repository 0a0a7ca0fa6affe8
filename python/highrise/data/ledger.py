"""Floor 2, ledger: one line for each file that a source listed, whether or not it had to be cleaned.

Points from a file to the cleaned record that decides it: its own, or that of an equal file before it. Knows nothing of
how files are read or cleaned.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from highrise.data.clean import CLEAN_SCHEMA

__all__ = ["Ledger"]

_FACTS = ("path", "source", "repository", "own", "size")


class Ledger:
    """Grows by a line a file, then makes the table of what became of every file."""

    def __init__(self) -> None:
        self._facts: dict[str, list[object]] = {name: [] for name in _FACTS}
        self._reasons: list[str] = []
        self._details: list[str] = []
        self._records: list[int] = []
        self._equals: list[bool] = []

    def __len__(self) -> int:
        return len(self._records)

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
        for name, value in zip(_FACTS, (path, source, repository, own, size), strict=True):
            self._facts[name].append(value)
        self._reasons.append(reason)
        self._details.append(detail)
        self._records.append(record)
        self._equals.append(equal)

    def table(self, cleaned: pa.Table, winners: dict[int, str]) -> pa.Table:
        """Every file with the columns of `cleaned`; `winners` names the kept document for each kept or doubled
        record.
        """
        records = np.asarray(self._records, dtype=np.int64)
        equals = np.asarray(self._equals, dtype=np.bool_)
        decided = records < 0
        table = cleaned.take(pa.array(records, mask=decided))
        reasons = np.array(table.column("reason").to_pylist(), dtype=object)
        details = np.array(table.column("detail").to_pylist(), dtype=object)
        reasons[decided] = np.array(self._reasons, dtype=object)[decided]
        details[decided] = np.array(self._details, dtype=object)[decided]
        splits = np.array(table.column("split").to_pylist(), dtype=object)
        for line in np.flatnonzero(equals):
            if (name := winners.get(int(records[line]))) is not None:
                reasons[line], details[line], splits[line] = "duplicate", f"of {name}", ""
        columns = dict(zip(table.column_names, table.columns, strict=True))
        for name in _FACTS:
            columns[name] = pa.array(self._facts[name], CLEAN_SCHEMA.field(name).type)
        columns["reason"], columns["detail"] = pa.array(reasons, pa.string()), pa.array(details, pa.string())
        columns["split"] = pa.array(splits, pa.string())
        empty = {"quality_parts": "{}", "redactions": "{}", "license": "unknown", "cluster": -1, "quality": 0.0}
        for name in set(columns) - {*_FACTS, "reason", "detail"}:
            columns[name] = columns[name].fill_null(empty.get(name, ""))
        return pa.table(columns)
