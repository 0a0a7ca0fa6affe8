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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from highrise.core.config import fingerprint, parse_duration
from highrise.core.errors import InputError
from highrise.core.files import sha256_file
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.core.progress import Progress
from highrise.data.card import write_card
from highrise.data.clean import CLEAN_SCHEMA, Job, clean_jobs, content_key, rules
from highrise.data.config import DataConfig
from highrise.data.contamination import fingerprint_evaluations
from highrise.data.duplicates import Duplicates, settings
from highrise.data.filters import is_vendored
from highrise.data.labels import read_verdicts
from highrise.data.ledger import Ledger
from highrise.data.licenses import UNKNOWN
from highrise.data.opt_out import OptOut
from highrise.data.pool import Pool
from highrise.data.previous import Previous
from highrise.data.readers import Limits
from highrise.data.search import PassedTexts, find_duplicates
from highrise.data.shards import SCHEMA, write_shards, write_table
from highrise.data.sources import Source, fingerprint_source, open_sources
from highrise.data.split import Split, split_documents
from highrise.data.stream import stream

__all__ = ["build_data", "build_dataset", "data_inputs"]

_CHUNK_FILES = 256
_CHUNK_BYTES = 4_000_000
_RELATIVES = 0.8
_WORK = "work"


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
    cleaned = pa.concat_tables(
        [CLEAN_SCHEMA.empty_table().drop_columns(["text"]), *(_read_part(p, text=False) for p in parts)]
    )
    if config.verdicts:
        cleaned = _reject(cleaned, read_verdicts(Path(config.verdicts).expanduser()))
    kept = np.flatnonzero(cleaned.column("reason").to_numpy(zero_copy_only=False) == "")
    if not len(kept):
        nothing = cleaned.append_column("cluster", pa.array([-1] * len(cleaned), pa.int64()))
        files = ledger.table(nothing.append_column("split", pa.array([""] * len(cleaned), pa.string())), {})
        raise InputError(f"none of the {len(files)} files in {', '.join(config.sources)} is usable: {_reasons(files)}")
    duplicates, related = _find_duplicates(config, cleaned, kept, parts, workers)
    cleaned, split, winners = _decide(config, cleaned, kept, duplicates, related)
    num_shards = write_shards(out, _kept_tables(cleaned, parts), shard_bytes=config.shard_bytes)
    files = ledger.table(cleaned, winners)
    write_table(out / "files.parquet", files)
    counts = write_card(out, config, sources, files, split, duplicates, num_shards)
    shutil.rmtree(out / _WORK)
    return counts


def _clean_all(
    sources: list[Source], config: DataConfig, work: Path, workers: int, earlier: Previous
) -> tuple[Ledger, list[Path]]:
    """Stream every source once; equal files are cleaned once, in chunks of at most 256 files and 4 MB, each a part.

    Which file stands in which part depends on the sources alone, so a build that was killed finds its parts again.
    """
    ledger = Ledger()
    parts: list[Path] = []
    seen: dict[str, int] = {}
    jobs: list[Job] = []
    size = 0
    with (
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
        write_table(part, clean_jobs(jobs, config))
    else:
        pool.clean(jobs, part)


def _triage(
    sources: list[Source], config: DataConfig, ledger: Ledger, seen: dict[str, int], progress: Progress
) -> Iterator[Job]:
    """Write every file into the ledger; yield those that must be cleaned, the first of equal ones."""
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
            known = key in seen
            ledger.add(**facts, record=seen.setdefault(key, len(seen)), equal=known)
            if not known:
                yield Job(**facts, license=license, key=key, data=item.data)


def _total(sources: list[Source]) -> float | None:
    """Bytes to read, as far as they are known: what archives and dumps unpack to is not."""
    return None if any(source.blobs for source in sources) else sum(source.size for source in sources)


def _reject(cleaned: pa.Table, verdicts: dict[str, str]) -> pa.Table:
    """Drop what people rejected, by the hash of the text that they saw."""
    rejected = pa.array([digest for digest, verdict in verdicts.items() if verdict == "drop"], pa.string())
    mask = pc.is_in(cleaned.column("sha256"), value_set=rejected)
    reasons = pc.if_else(mask, "rejected", cleaned.column("reason"))
    return cleaned.set_column(cleaned.schema.get_field_index("reason"), "reason", reasons)


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _timeout(config: DataConfig) -> float:
    return parse_duration(config.file_timeout, where="data.file_timeout")


def _read_part(part: Path, *, text: bool) -> pa.Table:
    """A cleaned chunk, with or without its texts."""
    columns = [name for name in CLEAN_SCHEMA.names if text or name != "text"]
    return pq.read_table(part, columns=columns, partitioning=None)


def _reasons(files: pa.Table) -> str:
    counts = files.column("reason").value_counts().to_pylist()
    return ", ".join(f"{row['counts']} {row['values']}" for row in sorted(counts, key=lambda row: -row["counts"]))


def _find_duplicates(
    config: DataConfig, files: pa.Table, kept: np.ndarray, parts: list[Path], workers: int
) -> tuple[Duplicates, np.ndarray]:
    """Clusters of the texts that passed: those to drop from, and those that a split must keep together.

    The best of a cluster is the team's own, then the best score, then the first path.
    """
    columns = {name: files.column(name).to_pylist() for name in ("own", "quality", "repository", "path")}
    order = sorted(
        range(len(kept)),
        key=lambda i: (
            not columns["own"][kept[i]],
            -columns["quality"][kept[i]],
            columns["repository"][kept[i]],
            columns["path"][kept[i]],
        ),
    )
    rank = np.empty(len(kept), dtype=np.int64)
    rank[order] = np.arange(len(kept))
    usable = np.zeros(len(files), dtype=np.bool_)
    usable[kept] = True
    wanted = settings(
        threshold=config.near_duplicate or _RELATIVES,
        num_perm=config.num_perm,
        threads=max(1, workers),
        seed=config.seed,
    )
    return find_duplicates(
        PassedTexts(tuple(parts), usable),
        wanted,
        rank=rank,
        equal_only=not config.near_duplicate,
        memory=config.search_memory,
        folder=parts[0].parent / "search",
    )


def _decide(
    config: DataConfig, files: pa.Table, kept: np.ndarray, duplicates: Duplicates, related: np.ndarray
) -> tuple[pa.Table, Split, dict[int, str]]:
    """Add what became of each duplicate, and the split, to the cleaned records; names the document that stands for
    each.
    """
    reasons = files.column("reason").to_pylist()
    details = files.column("detail").to_pylist()
    hashes = files.column("sha256").to_pylist()
    names = [
        f"{r}/{p}"
        for r, p in zip(files.column("repository").to_pylist(), files.column("path").to_pylist(), strict=True)
    ]
    cluster = np.full(len(files), -1, dtype=np.int64)
    cluster[kept] = related
    best = {int(duplicates.cluster[i]): int(kept[i]) for i in np.flatnonzero(duplicates.keep)}
    winners = {int(row): names[best[int(label)]] for row, label in zip(kept, duplicates.cluster, strict=True)}
    for i in np.flatnonzero(~duplicates.keep):
        row, winner = int(kept[i]), best[int(duplicates.cluster[i])]
        reasons[row] = "duplicate" if hashes[row] == hashes[winner] else "near duplicate"
        details[row] = f"of {names[winner]}"
    chosen = [row for row in range(len(files)) if reasons[row] == ""]
    files = files.append_column("cluster", pa.array(cluster))
    split = split_documents(files.take(chosen), config)
    sides = [""] * len(files)
    for row, side in zip(chosen, split.sides, strict=True):
        sides[row] = side
    files = files.set_column(files.schema.get_field_index("reason"), "reason", pa.array(reasons))
    files = files.set_column(files.schema.get_field_index("detail"), "detail", pa.array(details))
    return files.append_column("split", pa.array(sides, pa.string())), split, winners


def _kept_tables(files: pa.Table, parts: list[Path]) -> Iterator[pa.Table]:
    """The kept documents, part by part, with their split."""
    start = 0
    sizes = [pq.read_metadata(part).num_rows for part in parts]
    for part, size in zip(parts, sizes, strict=True):
        fate = files.slice(start, size)
        start += size
        mask = pa.compute.equal(fate.column("reason"), "")
        table = _read_part(part, text=True).filter(mask)
        yield table.append_column("split", fate.filter(mask).column("split")).select(SCHEMA.names)
