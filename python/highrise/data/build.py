"""Floor 2, build: sources to shards, a record of every file, and the data card.

Cleaned chunks lie in `work/` of the stage folder until the end, so a stopped build goes on where it stopped. Knows
nothing of the command line.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.config import fingerprint
from highrise.core.errors import InputError
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.core.progress import Progress
from highrise.data.card import write_card
from highrise.data.clean import CLEAN_SCHEMA, Chunk, Record, clean_chunk
from highrise.data.config import DataConfig
from highrise.data.duplicates import Duplicates, deduplicate
from highrise.data.licenses import UNKNOWN, RepositoryLicenses, is_license_file
from highrise.data.shards import SCHEMA, write_shards, write_table
from highrise.data.sources import STDLIB, Source, fingerprint_source, open_sources
from highrise.data.split import Split, split_documents

__all__ = ["build_data", "build_dataset", "data_inputs"]

_CHUNK_FILES = 256
_CHUNK_BYTES = 4_000_000
_RELATIVES = 0.8
_WORK = "work"


def data_inputs(config: DataConfig, *, cache: Path | None = None, refresh: bool = False) -> dict[str, str]:
    """A fingerprint for each source, for `core.manifest.build_stage`; changes when a file of the source does."""
    return {source.name: fingerprint_source(source) for source in open_sources(config, cache=cache, refresh=refresh)}


def build_data(
    config: DataConfig, folder: Path, *, workers: int = 1, cache: Path | None = None, refresh: bool = False
) -> tuple[Manifest, bool]:
    """Build the stage `folder` unless it is there and unchanged; the second value says whether it was reused."""
    sources = open_sources(config, cache=cache, refresh=refresh, leave_out=folder)
    inputs = {source.name: fingerprint_source(source) for source in sources}
    return build_stage(
        folder,
        stage="data",
        config=config,
        inputs=inputs,
        build=lambda out: build_dataset(config, out, workers=workers, sources=sources),
    )


def build_dataset(
    config: DataConfig,
    out: Path,
    *,
    workers: int = 1,
    cache: Path | None = None,
    sources: list[Source] | None = None,
) -> Counts:
    """Write `shards/`, `files.parquet` (what became of each file) and `DATACARD.md` into `out`; returns the counts.

    `workers` processes clean files and as many threads look for duplicates; the result does not depend on it. With
    more than one, the caller's script needs the usual `if __name__ == "__main__"` guard.
    """
    sources = open_sources(config, cache=cache) if sources is None else sources
    work = out / _WORK / fingerprint(config, {source.name: fingerprint_source(source) for source in sources})
    chunks = [chunk for source in sources for chunk in _chunks(source, config)]
    parts = [work / f"{number:05d}.parquet" for number in range(len(chunks))]
    total = sum(file.size for source in sources for file in source.files)
    with Progress("data: clean", unit="B", total=total) as progress:
        _clean_all(chunks, parts, workers, progress)
    files = pa.concat_tables([_skipped(sources), *(_read_part(part, text=False) for part in parts)])
    kept = np.flatnonzero(files.column("reason").to_numpy(zero_copy_only=False) == "")
    if not len(kept):
        raise InputError(f"none of the {len(files)} files in {', '.join(config.sources)} is usable: {_reasons(files)}")
    duplicates, relatives = _find_duplicates(config, files, kept, parts, workers)
    files, split = _decide(config, files, kept, duplicates, relatives)
    tables = _kept_tables(files, parts)
    num_shards = write_shards(out, tables, shard_bytes=config.shard_bytes)
    write_table(out / "files.parquet", files)
    counts = write_card(out, config, sources, files, split, duplicates, num_shards)
    shutil.rmtree(out / _WORK)
    return counts


def _chunks(source: Source, config: DataConfig) -> Iterator[Chunk]:
    """The files of a source in chunks of at most 256 files and 4 MB."""
    found = RepositoryLicenses((file.path for file in source.files), lambda path: _read_small(source.root / path))
    fallback = "PSF-2.0" if source.name == STDLIB else _license_above(source.root)
    start = size = 0
    for end in range(len(source.files) + 1):
        last = end == len(source.files)
        if end > start and (last or end - start == _CHUNK_FILES or size + source.files[end].size > _CHUNK_BYTES):
            files = source.files[start:end]
            yield Chunk(
                source=source.name,
                root=str(source.root),
                repository=source.repository,
                own=source.own,
                files=files,
                repository_licenses=tuple(fallback if (f := found.of(file.path)) == UNKNOWN else f for file in files),
                config=config,
            )
            start, size = end, 0
        if not last:
            size += min(source.files[end].size, config.max_file_bytes)


def _read_small(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(1 << 17).decode("utf-8", "replace")
    except OSError:
        return None


def _license_above(root: Path) -> str:
    """The licence of the work tree that `root` is a subfolder of."""
    from highrise.data.git import top_level

    top = top_level(root)
    if top is None or top.resolve() == root:
        return UNKNOWN
    names = [path.name for path in top.iterdir() if path.is_file() and is_license_file(path.name)]
    return RepositoryLicenses(names, lambda name: _read_small(top / name)).of("file")


def _clean_all(chunks: list[Chunk], parts: list[Path], workers: int, progress: Progress) -> None:
    """Clean every chunk whose part is not there yet, in this process or in `workers` others."""
    todo = [(chunk, part) for chunk, part in zip(chunks, parts, strict=True) if not part.exists()]
    pending = {id(chunk) for chunk, _ in todo}
    progress.advance(sum(file.size for chunk in chunks if id(chunk) not in pending for file in chunk.files))
    if workers <= 1 or len(todo) <= 2:
        for chunk, part in todo:
            write_table(part, clean_chunk(chunk))
            progress.advance(sum(file.size for file in chunk.files))
        return
    with ProcessPoolExecutor(min(workers, len(todo)), mp_context=get_context("spawn")) as pool:
        for (chunk, part), table in zip(todo, pool.map(clean_chunk, [chunk for chunk, _ in todo]), strict=True):
            write_table(part, table)
            progress.advance(sum(file.size for file in chunk.files))


def _skipped(sources: list[Source]) -> pa.Table:
    """Records of what was listed but is no readable regular file."""
    import msgspec

    records = [
        Record(
            path=path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
            source=source.name,
            repository=source.repository,
            own=source.own,
            size=0,
            reason=reason,
        )
        for source in sources
        for path, reason in source.skipped
    ]
    return pa.Table.from_pylist([msgspec.structs.asdict(r) for r in records], schema=CLEAN_SCHEMA).drop_columns(
        ["text"]
    )


def _read_part(part: Path, *, text: bool) -> pa.Table:
    """A cleaned chunk, with or without its texts."""
    columns = [name for name in CLEAN_SCHEMA.names if text or name != "text"]
    return pq.read_table(part, columns=columns, partitioning=None)


def _reasons(files: pa.Table) -> str:
    counts = files.column("reason").value_counts().to_pylist()
    return ", ".join(f"{row['counts']} {row['values']}" for row in sorted(counts, key=lambda row: -row["counts"]))


def _find_duplicates(
    config: DataConfig, files: pa.Table, kept: np.ndarray, parts: list[Path], workers: int
) -> tuple[Duplicates, Duplicates]:
    """Clusters of the texts that passed: those to drop from, and those that a split must keep together.

    They are the same unless near-duplicates are switched off. The best of a cluster is the team's own, then the best
    score, then the first path.
    """
    texts = pa.chunked_array(
        [_read_part(part, text=True).column("text").drop_null().combine_chunks() for part in parts]
    )
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
    find = functools.partial(deduplicate, texts, num_perm=config.num_perm, threads=workers, seed=config.seed, rank=rank)
    relatives = find(threshold=config.near_duplicate or _RELATIVES)
    if config.near_duplicate:
        return relatives, relatives
    return find(threshold=None), relatives


def _decide(
    config: DataConfig, files: pa.Table, kept: np.ndarray, duplicates: Duplicates, relatives: Duplicates
) -> tuple[pa.Table, Split]:
    """Add what became of each duplicate, and the split, to the table of files."""
    reasons = files.column("reason").to_pylist()
    details = files.column("detail").to_pylist()
    hashes = files.column("sha256").to_pylist()
    names = [
        f"{r}/{p}"
        for r, p in zip(files.column("repository").to_pylist(), files.column("path").to_pylist(), strict=True)
    ]
    cluster = np.full(len(files), -1, dtype=np.int64)
    cluster[kept] = relatives.cluster
    best = {int(duplicates.cluster[i]): int(kept[i]) for i in np.flatnonzero(duplicates.keep)}
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
    return files.append_column("split", pa.array(sides)), split


def _kept_tables(files: pa.Table, parts: list[Path]) -> Iterator[pa.Table]:
    """The kept documents, part by part, with their split."""
    start = len(files)
    sizes = [pq.read_metadata(part).num_rows for part in parts]
    start -= sum(sizes)
    for part, size in zip(parts, sizes, strict=True):
        fate = files.slice(start, size)
        start += size
        mask = pa.compute.equal(fate.column("reason"), "")
        table = _read_part(part, text=True).filter(mask)
        yield table.append_column("split", fate.filter(mask).column("split")).select(SCHEMA.names)
