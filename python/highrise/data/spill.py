"""Floor 2, spill: near-duplicates of texts larger than memory, by files in a folder.

The steps: sign every text, sort the content hashes, compare what shares a band, compare borderline pairs exactly,
label, write. A journal says how far it got; a killed run goes on there. Knows nothing of how texts are compared
(`rust/data/spill`).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.errors import HighriseError, InputError
from highrise.core.files import atomic_write, exclusive, explain_os_error
from highrise.core.native import rust
from highrise.core.progress import Progress, say
from highrise.data.arrays import flags, integers
from highrise.data.columns import hand_over
from highrise.data.duplicates import Settings
from highrise.data.tables import Batch, Table, kept_writer

__all__ = ["Found", "TextSource", "deduplicate_table", "search_files", "work_folder"]

_VERSION = 1
_SYNC_SECONDS = 2.0
_STEPS = ("sign", "equal", "compare", "sets", "check", "label")
_ROWS = 1 << 18


class _State(msgspec.Struct, kw_only=True):
    """How far a run got, and what it counted."""

    version: int
    key: str
    step: str = "sign"
    rows: int = 0
    read: int = 0
    bytes: int = 0
    absent: int = 0
    bands: int = 0
    set_rows: int = 0
    sets: int = 0
    exact_duplicates: int = 0
    candidate_pairs: int = 0
    exact_checks: int = 0
    cut_off: int = 0


class TextSource(Protocol):
    """What is searched: texts that can be read again, from any row on."""

    @property
    def column(self) -> str:
        """The name of the column with the texts."""

    def fingerprint(self) -> list[list[Any]]:
        """Changes when the texts do."""

    def text_bytes(self) -> int:
        """Bytes of text to be read, about: for progress."""

    def batches(self, *, memory: int, start: int = 0) -> Iterator[Batch]:
        """Batches of about `memory` bytes from row `start` on."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Labels of all rows (uint32, mapped from files of the folder), a row without a text its own, and statistics."""

    equal: npt.NDArray[np.uint32]
    near: npt.NDArray[np.uint32]
    connected: npt.NDArray[np.uint32]
    """Of whole components, before any text is cut off."""
    statistics: dict[str, int]


def search_files(source: TextSource, settings: Settings, folder: Path, *, memory: int) -> Found:
    """The clusters of `source`, found in files of `folder` with about `memory` bytes; goes on with what lies there.

    Raises `InputError` when the disk is full.
    """
    try:
        search = _Search(source, settings, folder, memory)
        search.run()
    except OSError as error:
        raise explain_os_error(error, f"working in {folder}") from error
    first = search.array("first")
    return Found(
        equal=first,
        near=search.array("labels"),
        connected=_roots(search.array("parents"))[first],
        statistics=search.counted(),
    )


def _roots(parents: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The smallest member of the tree that each row is in."""
    roots = np.array(parents)
    while True:
        above = roots[roots]
        if (above == roots).all():
            break
        roots = above
    smallest = np.arange(len(roots), dtype=np.uint32)
    np.minimum.at(smallest, roots, np.arange(len(roots), dtype=np.uint32))
    return smallest[roots]


def work_folder(target: Path) -> Path:
    """Where the files of a run lie that writes to `target`."""
    return target.with_name(f"{target.name}.dedup-work")


def deduplicate_table(table: Table, target: Path, settings: Settings, *, memory: int) -> dict[str, int]:
    """Write the kept rows of `table` to `target`, and `target.clusters.parquet` with a label for every row.

    Holds about `memory` bytes beside the program itself; the folder `target.dedup-work` takes about
    0.7 kB a text and goes at the end. Clusters are those of `deduplicate`. Returns its statistics, and `absent_texts`.
    Raises `InputError` when the disk is full, when another run works there, or for a table that cannot be read; what
    was done so far is kept and a new run goes on there.
    """
    folder = work_folder(target)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "lock", busy=f"another run writes to {target}; wait for it, or name another file"):
        try:
            found = _Run(table, target, settings, folder, memory).run()
        except OSError as error:
            raise explain_os_error(error, f"working in {folder}") from error
        except ValueError as error:
            raise InputError(f"cannot look for duplicates: {error}") from error
        shutil.rmtree(folder)
    return found


class _Search:
    steps: tuple[str, ...] = _STEPS

    def __init__(self, source: TextSource, settings: Settings, folder: Path, memory: int) -> None:
        self.source, self.settings, self.folder = source, settings, folder
        self.batch_memory = max(memory // 16, 1 << 16)
        self.bands = settings.bands or rust.data.choose_bands(settings.threshold or 1.0, settings.num_perm)
        asked = msgspec.structs.asdict(settings)
        del asked["threads"]
        key = msgspec.json.encode([source.fingerprint(), source.column, asked]).decode()
        self.native = rust.data.SpillFolder(folder, settings, memory)
        self.state = self._resume(key)

    def _resume(self, key: str) -> _State:
        journal = self.folder / "journal.json"
        if journal.exists():
            try:
                state = msgspec.json.decode(journal.read_bytes(), type=_State)
            except msgspec.DecodeError:
                state = _State(version=0, key="")
            if state.version == _VERSION and state.key == key:
                say(f"going on in {self.folder}: {state.rows} texts read, at the step {state.step}")
                return state
            say(f"{self.folder} is of another input or other settings; starting again")
        for path in self.folder.iterdir():
            if path.name == "sorting":
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()
        return _State(version=_VERSION, key=key)

    def _save(self) -> None:
        with atomic_write(self.folder / "journal.json") as file:
            file.write(msgspec.json.encode(self.state))

    def _next(self, step: str) -> None:
        self.state.step = step
        self._save()

    def run(self) -> dict[str, int]:
        while True:
            step = self.state.step
            getattr(self, f"_{step}")()
            if step == self.steps[-1]:
                return self.counted()
            self._next(self.steps[self.steps.index(step) + 1])

    def array(self, name: str, kind: Any = np.uint32, *, fresh: bool = False) -> npt.NDArray[Any]:
        """An array of the rows in a file; `fresh` makes it anew, all zero."""
        if not self.state.rows:
            return np.zeros(0, dtype=kind)
        path = self.folder / name
        if fresh:
            # taken from the disk at once: a full disk is an error here, not a crash at the first touch
            with path.open("wb") as file:
                blank = bytes(1 << 20)
                left = self.state.rows * np.dtype(kind).itemsize
                while left:
                    left -= file.write(blank[: min(left, len(blank))])
        return np.memmap(path, dtype=kind, mode="r+", shape=(self.state.rows,))

    def _counting(self, name: str) -> npt.NDArray[np.uint32]:
        """A fresh array of 0, 1, 2, ..."""
        array = self.array(name, fresh=True)
        for start in range(0, len(array), _ROWS):
            array[start : start + _ROWS] = np.arange(start, min(start + _ROWS, len(array)), dtype=np.uint32)
        return array

    def _sign(self) -> None:
        state = self.state
        writer = self.native.writer(state.rows)
        with Progress("reading texts", unit="B", total=self.source.text_bytes()) as progress:
            progress.advance(state.read)
            synced = time.monotonic()
            ahead = msgspec.structs.replace(state)
            for batch in self.source.batches(memory=self.batch_memory, start=state.rows):
                ahead.bytes += writer.add(hand_over(batch.texts), batch.absent)
                ahead.rows += len(batch.absent)
                ahead.read += batch.size
                ahead.absent += int(batch.absent.sum())
                progress.advance(batch.size)
                if time.monotonic() - synced > _SYNC_SECONDS:
                    writer.sync()
                    self.state = msgspec.structs.replace(ahead)
                    self._save()
                    synced = time.monotonic()
            writer.sync()
            self.state = ahead

    def _equal(self) -> None:
        if self.state.rows:
            say(f"sorting the content of {self.state.rows} texts")
        first = self._counting("first")
        self.state.exact_duplicates = self.native.find_equal(first) if len(first) else 0
        self._counting("parents")

    def _compare(self) -> None:
        if self.settings.threshold is None or not self.state.rows:
            return
        first, parents = self.array("first"), self.array("parents")
        bands = self.bands[0]
        with Progress("comparing", unit="bands", total=bands) as progress:
            progress.advance(self.state.bands)
            for band in range(self.state.bands, bands):
                self.state.candidate_pairs += self.native.compare_band(band, first, parents)
                self.state.bands = band + 1
                self._save()
                progress.advance(1)

    def _sets(self) -> None:
        if self.settings.threshold is None or not self.state.rows:
            return
        state = self.state
        needed = self.array("needed", np.uint8, fresh=True)
        count = self.native.mark_needed(self.array("parents"), needed)
        writer = self.native.set_writer(state.sets)
        with Progress("reading texts to compare exactly", unit="texts", total=count) as progress:
            progress.advance(state.sets)
            synced = time.monotonic()
            done = state.set_rows
            for start in self._needed_from(needed, done):
                for batch in self.source.batches(memory=self.batch_memory, start=start):
                    wanted = np.flatnonzero(needed[batch.first_row : batch.first_row + len(batch.absent)])
                    if len(wanted):
                        writer.add((wanted + batch.first_row).astype(np.uint32), hand_over(_take(batch.texts, wanted)))
                        progress.advance(len(wanted))
                    done = batch.first_row + len(batch.absent)
                    if time.monotonic() - synced > _SYNC_SECONDS:
                        state.sets, state.set_rows = writer.sync(), done
                        self._save()
                        synced = time.monotonic()
            state.sets, state.set_rows = writer.sync(), done

    @staticmethod
    def _needed_from(needed: npt.NDArray[Any], start: int) -> Iterator[int]:
        """The first row from `start` on that is needed, if there is one."""
        for block in range(start, len(needed), _ROWS):
            found = np.flatnonzero(needed[block : block + _ROWS])
            if len(found):
                yield int(found[0]) + block
                return

    def _check(self) -> None:
        if self.settings.threshold is not None and self.state.rows:
            say(f"comparing {self.state.sets} texts exactly")
            self.state.exact_checks = self.native.check_borderline(self.array("parents"))

    def _label(self) -> None:
        labels = self.array("labels", fresh=True)
        if len(labels):
            self.state.cut_off = self.native.label(self.array("first"), self.array("parents"), labels)

    def counted(self) -> dict[str, int]:
        """The statistics of `Duplicates`."""
        labels, state = self.array("labels"), self.state
        sizes = self.array("needed", fresh=True)
        for start in range(0, len(labels), _ROWS):
            found, counts = np.unique(labels[start : start + _ROWS], return_counts=True)
            sizes[found] += counts.astype(np.uint32)
        kept = int(np.count_nonzero(sizes))
        return {
            "texts": state.rows,
            "kept": kept,
            "clusters": int(np.count_nonzero(sizes > 1)),
            "largest_cluster": int(sizes.max(initial=0)),
            "near_duplicates": state.rows - kept - state.exact_duplicates,
            "absent_texts": state.absent,
            "bytes": state.bytes,
            "exact_duplicates": state.exact_duplicates,
            "candidate_pairs": state.candidate_pairs,
            "exact_checks": state.exact_checks,
            "cut_off": state.cut_off,
            "bands": self.bands[0],
            "rows": self.bands[1],
        }


class _Run(_Search):
    """The search in a table, and its kept rows written."""

    steps = (*_STEPS, "write")

    def __init__(self, table: Table, target: Path, settings: Settings, folder: Path, memory: int) -> None:
        super().__init__(table, settings, folder, memory)
        self.table, self.target = table, target

    def _write(self) -> None:
        labels = self.array("labels")
        clusters_path = self.target.with_name(f"{self.target.name}.clusters.parquet")
        schema = pa.schema([("row", pa.int64()), ("cluster", pa.int64()), ("keep", pa.bool_())])
        parts = [(self.table, self.target)]
        if self.target.suffix == "":
            files = self.table.files
            names = [self.target / path.relative_to(self.table.path) for path in files]
            parts = [
                (msgspec.structs.replace(self.table, files=(file,)), name)
                for file, name in zip(files, names, strict=True)
            ]
        row = 0
        with Progress("writing", unit="texts", total=len(labels)) as progress, atomic_write(clusters_path) as file:
            with pq.ParquetWriter(file, schema, compression="zstd") as clusters:
                for table, name in parts:
                    row = self._write_part(table, name, labels, row, clusters, progress)
            if row != len(labels):
                raise self._changed()

    def _write_part(
        self, table: Table, name: Path, labels: npt.NDArray[Any], row: int, clusters: Any, progress: Progress
    ) -> int:
        """Write the kept rows of a part whose first row is `row`; returns the row after its last."""
        with atomic_write(name) as file:
            write, finish = kept_writer(file, name, table)
            for batch in table.batches(memory=self.batch_memory, whole=True):
                found = np.asarray(labels[row : row + len(batch.absent)], dtype=np.int64)
                numbers = np.arange(row, row + len(found))
                if len(found) != len(batch.absent):
                    raise self._changed()
                keep = found == numbers
                clusters.write_table(
                    pa.table([integers(numbers), integers(found), flags(keep)], names=["row", "cluster", "keep"])
                )
                write(_take(batch.rows, np.flatnonzero(keep)))
                progress.advance(len(found))
                row += len(found)
            finish()
        return row

    def _changed(self) -> HighriseError:
        return InputError(f"{self.table.path} has changed while it was read; start again")


def _take(rows: Any, wanted: npt.NDArray[np.int64]) -> Any:
    if isinstance(rows, list):
        return [rows[place] for place in wanted]
    return rows.take(integers(wanted))
