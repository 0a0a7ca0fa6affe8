"""Floor 2, search: the duplicates among the cleaned texts of a build, in memory where they fit, else in files.

Both ways find the same clusters. Which one is taken depends on the bytes of the texts alone. Knows nothing of filters
or of what is kept of a cluster.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.data.arrays import flags, strings
from highrise.data.duplicates import Duplicates, Settings, choose_kept, search_texts
from highrise.data.shards import read_columns
from highrise.data.spill import search_files
from highrise.data.tables import Batch

__all__ = ["PassedTexts", "find_duplicates"]


_EMPTY = strings([""], pa.large_string())[0]


class PassedTexts(msgspec.Struct, frozen=True):
    """The texts of Parquet parts in their order; a row that is not `usable` counts as one without a text."""

    parts: tuple[Path, ...]
    usable: Any
    """(rows,) bool."""
    column: str = "text"

    def fingerprint(self) -> list[list[Any]]:
        """Names and sizes of the parts."""
        return [[part.name, part.stat().st_size] for part in self.parts]

    def text_bytes(self) -> int:
        """Bytes of all texts, those of rows that are not usable too."""
        found = [pq.read_metadata(part) for part in self.parts]
        return sum(
            one.row_group(group).column(one.schema.names.index(self.column)).total_uncompressed_size
            for one in found
            for group in range(one.num_row_groups)
        )

    def batches(self, *, memory: int, start: int = 0) -> Iterator[Batch]:
        """The texts from row `start` on, a part at a time; parts are small (`memory` is not looked at)."""
        row = 0
        for number, part in enumerate(self.parts):
            rows = pq.read_metadata(part).num_rows
            if row + rows > start:
                skipped = max(start - row, 0)
                texts = read_columns(part, [self.column]).column(self.column)
                yield Batch(
                    file=number,
                    first_row=row + skipped,
                    texts=texts.slice(skipped).fill_null(_EMPTY),
                    absent=~self.usable[row + skipped : row + rows],
                    rows=None,
                    size=texts.nbytes,
                )
            row += rows

    def in_memory(self) -> pa.ChunkedArray:
        """The usable texts alone."""
        chunks = [batch.texts.filter(flags(~batch.absent)) for batch in self.batches(memory=0)]
        return pa.chunked_array([chunk for column in chunks for chunk in column.chunks], pa.large_string())


def find_duplicates(
    texts: PassedTexts, wanted: Settings, *, rank: npt.NDArray[np.int64], equal_only: bool, memory: int, folder: Path
) -> tuple[Duplicates, npt.NDArray[np.int64]]:
    """Which of the usable texts are to be dropped (of equal ones, or of nearly equal ones too), and (texts,) a label of
    whatever is connected with them, which is more: what is kept of a cluster can be near a text that the cap cut off.

    Labels count the usable texts alone. Holds at most about `memory` bytes of texts; beyond that signatures and keys
    lie in `folder` (0.7 kB a text), which is made and removed.
    """
    if texts.text_bytes() <= memory // 2:
        return _in_memory(texts, wanted, rank, equal_only)
    if folder.exists():  # of a build that was killed; what it counted depends on where it was
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    found = search_files(texts, wanted, folder, memory=memory)
    kept = np.flatnonzero(texts.usable)

    def of_kept(labels: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        return np.searchsorted(kept, labels[kept]).astype(np.int64)

    cluster = of_kept(found.equal if equal_only else found.near)
    related, counted = of_kept(found.connected), {**found.statistics, "texts": len(kept)}
    del found
    shutil.rmtree(folder)
    return Duplicates(cluster=cluster, keep=choose_kept(cluster, rank), statistics=counted), related


def _in_memory(
    texts: PassedTexts, wanted: Settings, rank: npt.NDArray[np.int64], equal_only: bool
) -> tuple[Duplicates, npt.NDArray[np.int64]]:
    column = texts.in_memory()
    found, connected = search_texts(column, wanted, rank)
    if equal_only:
        found, _ = search_texts(column, msgspec.structs.replace(wanted, threshold=None), rank)
    return found, connected
