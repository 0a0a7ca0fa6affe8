"""Floor 2, build: sources to shards, a record of every file, and the data card.

Cleaned chunks lie in `work/` of the stage folder until the end, so a stopped build goes on where it stopped. Knows
nothing of the command line.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pathspec
import pyarrow as pa

from highrise.core.config import fingerprint, parse_duration
from highrise.core.errors import InputError
from highrise.core.files import sha256_file
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.core.native import rust
from highrise.core.progress import Progress
from highrise.data.arrays import flags, strings
from highrise.data.card import Tally, write_card
from highrise.data.clean import Job, clean_jobs, content_key, rules
from highrise.data.config import DataConfig
from highrise.data.contamination import fingerprint_evaluations
from highrise.data.decide import KEPT, Fates, decide
from highrise.data.files import FILES_SCHEMA, file_tables
from highrise.data.filters import is_vendored
from highrise.data.ledger import Ledger
from highrise.data.licenses import UNKNOWN
from highrise.data.opt_out import OptOut
from highrise.data.pool import Pool
from highrise.data.previous import Previous
from highrise.data.readers import Limits
from highrise.data.records import Records
from highrise.data.shards import SCHEMA, read_columns, table_writer, write_shards, write_table
from highrise.data.sources import Source, fingerprint_source, open_sources
from highrise.data.stream import stream

__all__ = ["build_data", "build_dataset", "data_inputs"]

_CHUNK_FILES = 256
_CHUNK_BYTES = 4_000_000
_WORK = "work"
_SHARED = [name for name in SCHEMA.names if name != "split"]


def data_inputs(config: DataConfig, *, cache: Path | None = None, refresh: bool = False) -> dict[str, str]:
    """A fingerprint for each source, for `core.manifest.build_stage`; changes when a file of the source does."""
    return _inputs(config, open_sources(config, cache=cache, refresh=refresh))


def _inputs(config: DataConfig, sources: list[Source]) -> dict[str, str]:
    inputs = {source.name: fingerprint_source(source) for source in sources}
    if config.evaluations:
        inputs["evaluations"] = fingerprint_evaluations(config.evaluations)
    for entry in config.opt_out:
        if entry.startswith("@"):
            inputs[entry] = _hash(Path(entry[1:]))
    if config.verdicts:
        inputs["verdicts"] = _hash(Path(config.verdicts))
    return inputs


def _hash(path: Path) -> str:
    try:
        return sha256_file(path.expanduser())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; name a file") from error


def build_data(
    config: DataConfig, folder: Path, *, workers: int = 1, cache: Path | None = None, refresh: bool = False
) -> tuple[Manifest, bool]:
    """Build the stage `folder` unless it is there and unchanged; the second value says whether it was reused."""
    sources = open_sources(config, cache=cache, refresh=refresh, leave_out=folder)
    inputs = _inputs(config, sources)
    return build_stage(
        folder,
        stage="data",
        config=config,
        inputs=inputs,
        build=lambda out: build_dataset(
            config, out, workers=workers, sources=sources, inputs=inputs, previous=folder if folder.exists() else None
        ),
    )


def build_dataset(
    config: DataConfig,
    out: Path,
    *,
    workers: int = 1,
    cache: Path | None = None,
    sources: list[Source] | None = None,
    inputs: dict[str, str] | None = None,
    previous: Path | None = None,
) -> Counts:
    """Write `shards/`, `files.parquet` (what became of each file) and `DATACARD.md` into `out`; returns the counts.

    `workers` processes clean files and as many threads look for duplicates; the result does not depend on it. With 0
    all is done in this process, which a crash of a native parser then ends; otherwise the caller's script needs the
    usual `if __name__ == "__main__"` guard. What an earlier build in the folder `previous` found out is taken over.
    `sources` and `inputs` are what the caller has opened and fingerprinted already.
    """
    sources = open_sources(config, cache=cache) if sources is None else sources
    earlier = Previous(previous)
    inputs = _inputs(config, sources) if inputs is None else inputs
    work = out / _WORK / fingerprint(config, rules(config), inputs, earlier.fingerprint)
    ledger, parts = _clean_all(sources, config, work, workers, earlier)
    records = Records(parts, work / "records.arrow")
    fates = decide(config, records, parts, workers=workers)
    tally = Tally(len(records))
    if fates is None:
        for table in file_tables(ledger, records, None):
            tally.add(table)
        raise InputError(f"none of the {len(ledger)} files in {', '.join(config.sources)} is usable: {tally.reasons()}")
    num_shards = write_shards(out, _kept_tables(records, fates, parts), shard_bytes=config.shard_bytes)
    with table_writer(out / "files.parquet", FILES_SCHEMA) as write:
        for table in file_tables(ledger, records, fates):
            tally.add(table)
            write(table)
    counts = write_card(out, config, sources, tally, fates, num_shards)
    del records
    shutil.rmtree(out / _WORK)
    return counts


def _clean_all(
    sources: list[Source], config: DataConfig, work: Path, workers: int, earlier: Previous
) -> tuple[Ledger, list[Path]]:
    """Stream every source once; equal files are cleaned once, in chunks of at most 256 files and 4 MB, each a part.

    Which file stands in which part depends on the sources alone, so a build that was killed finds its parts again.
    """
    parts: list[Path] = []
    seen = rust.data.Numbers()
    jobs: list[Job] = []
    size = 0
    with (
        Ledger(work / "ledger.arrow") as ledger,
        Progress("data: clean", unit="B", total=_total(sources)) as progress,
        Pool(config, workers=workers, timeout=_timeout(config), done=lambda _: None) as pool,
    ):
        for job in _triage(sources, config, ledger, seen, progress):
            if jobs and (len(jobs) == _CHUNK_FILES or size + len(job.data) > _CHUNK_BYTES):
                _clean(jobs, work, parts, pool, config, workers, earlier)
                jobs, size = [], 0
            jobs.append(job)
            size += len(job.data)
        if jobs:
            _clean(jobs, work, parts, pool, config, workers, earlier)
        pool.finish()
    return ledger, parts


def _clean(
    jobs: list[Job], work: Path, parts: list[Path], pool: Pool, config: DataConfig, workers: int, earlier: Previous
) -> None:
    """Have one chunk cleaned, unless its part is there or all of it is known from an earlier build."""
    part = work / f"{len(parts):05d}.parquet"
    parts.append(part)
    if part.exists():
        return
    for job in jobs:
        job.done = earlier.find(job)
        if job.done is not None:
            job.data = b""
    if workers <= 0 or all(job.done is not None for job in jobs):
        write_table(part, clean_jobs(jobs, config), compression="lz4")
    else:
        pool.clean(jobs, part)


def _triage(sources: list[Source], config: DataConfig, ledger: Ledger, seen: Any, progress: Progress) -> Iterator[Job]:
    """Write every file into the ledger; yield those that must be cleaned, the first of equal ones. `seen` numbers
    their keys.
    """
    include = pathspec.GitIgnoreSpec.from_lines(config.include) if config.include else None
    exclude = pathspec.GitIgnoreSpec.from_lines(config.exclude) if config.exclude else None
    limits = Limits(
        item_bytes=config.max_file_bytes,
        total_bytes=config.max_unpacked_bytes,
        ratio=config.max_unpacked_ratio,
        text_column=config.text_column,
    )
    by_rules = rules(config)
    opted_out = OptOut(config.opt_out)
    for source in sources:
        for path, reason in source.skipped:
            ledger.add(
                path=_shown(path),
                source=source.name,
                repository=source.repository,
                own=source.own,
                size=0,
                reason=reason,
            )
        for item in stream(source, limits):
            progress.advance(item.size)
            path = _shown(item.path)
            facts: dict[str, Any] = {
                "path": path,
                "source": source.name,
                "repository": item.repository or source.repository,
                "own": source.own,
                "size": item.size,
            }
            reason, detail = item.reason, item.detail
            if (pattern := opted_out(facts["repository"])) is not None:
                reason, detail = "opted out", pattern
            elif (include is not None and not include.match_file(item.path)) or (
                exclude and exclude.match_file(item.path)
            ):
                reason, detail = "excluded", ""
            elif path != item.path:
                reason, detail = "bad name", ""
            elif not reason and (folder := is_vendored(path)) is not None:
                reason, detail = "vendored", folder
            if reason:
                ledger.add(**facts, reason=reason, detail=detail)
                continue
            license = item.license or UNKNOWN
            key = content_key(by_rules, license, source.own, path, item.data)
            record, known = seen.number(bytes.fromhex(key))
            ledger.add(**facts, record=record, equal=known)
            if not known:
                yield Job(**facts, license=license, key=key, data=item.data)


def _total(sources: list[Source]) -> float | None:
    """Bytes to read, as far as they are known: what archives and dumps unpack to is not."""
    return None if any(source.blobs for source in sources) else sum(source.size for source in sources)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _timeout(config: DataConfig) -> float:
    return parse_duration(config.file_timeout, where="data.file_timeout")


def _kept_tables(records: Records, fates: Fates, parts: list[Path]) -> Iterator[pa.Table]:
    """The kept documents, part by part, with their split."""
    start = 0
    for part, size in zip(parts, records.sizes, strict=True):
        rows = slice(start, start + size)
        start += size
        kept = fates.fate[rows] == KEPT
        if not kept.any():
            continue
        split = strings(np.where(fates.held[rows][kept], "validation", "train").tolist())
        table = read_columns(part, _SHARED).filter(flags(kept))
        yield table.append_column("split", split).select(SCHEMA.names)
