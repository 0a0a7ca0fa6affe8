"""Floor 2, mixture: how often each document is seen in training: weights, epochs and temperature by source, language
or repository.

A group of s bytes gets a share of the budget in proportion to weight * s^(1 / temperature): temperature 1 leaves the
proportions, larger ones raise small groups (Conneau et al., arXiv 1911.02116, section 3.1). No group is seen more
often than `max_epochs`; what it cannot fill goes to the others. The order depends on the seed and the texts alone; as a
curriculum (Bengio et al., ICML 2009) each pass goes from short to long texts, or from low to high quality.
Held-out documents are passed on as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from highrise.core.config import Config
from highrise.core.errors import ConfigError
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.data.arrays import integers, values
from highrise.data.shards import SCHEMA, data_manifest, read_tables, write_shards

__all__ = ["MixtureConfig", "mix", "plan"]

_FILES = 256
_PIECE = 2_000


class MixtureConfig(Config, frozen=True):
    """What a mixture is made of."""

    by: Literal["source", "repository", "language", "license"] = "source"
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    """Group -> weight; groups without one have weight 1, weight 0 leaves a group out."""
    temperature: float = 1.0
    epochs: float = 1.0
    """Size of the mixture, in sizes of the training side."""
    max_epochs: float = 4.0
    """How often one document may be seen (Muennighoff et al., arXiv 2305.16264: up to four are as good as new)."""
    order: Literal["seed", "length", "quality"] = "seed"
    """Of the training side: by the seed, or in each pass short texts first, or those of low quality first."""
    seed: int = 0
    shard_bytes: int = 64_000_000
    memory: int = 1_000_000_000
    """Bytes of texts that may be held; a larger mixture is put in order in files."""

    def __post_init__(self) -> None:
        if any(not weight >= 0 for weight in self.weights.values()):
            raise ConfigError(f"a weight of {self.weights} is below 0; use 0 to leave a group out")
        for name in ("temperature", "epochs", "max_epochs", "shard_bytes", "memory"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; use a number above 0")


def plan(sizes: dict[str, int], config: MixtureConfig) -> dict[str, float]:
    """Epochs of each group, from its bytes; their bytes add up to the budget unless `max_epochs` caps all groups."""
    if stray := sorted(set(config.weights) - set(sizes)):
        raise ConfigError(f'there is no {config.by} "{stray[0]}", but {", ".join(sorted(sizes)[:8])}')
    wanted = {
        name: config.weights.get(name, 1.0) * size ** (1 / config.temperature)
        for name, size in sizes.items()
        if size > 0
    }
    wanted = {name: share for name, share in wanted.items() if share > 0}
    epochs = dict.fromkeys(sizes, 0.0)
    left = config.epochs * sum(sizes.values())
    while wanted and left > 1e-9:
        total = sum(wanted.values())
        given = {name: left * (share / total) for name, share in wanted.items()}
        full = [name for name in given if given[name] > config.max_epochs * sizes[name]]
        for name in full or list(given):
            epochs[name] = min(config.max_epochs, given[name] / sizes[name])
            left -= epochs[name] * sizes[name]
            del wanted[name]
    return epochs


def mix(folder: Path, out: Path, config: MixtureConfig) -> tuple[Manifest, bool]:
    """Write the mixture of the data folder `folder` as the data folder `out`; the second value says whether it was
    reused.
    """
    manifest = data_manifest(folder)
    return build_stage(
        out,
        stage="data",
        config=config,
        inputs={"data": manifest.fingerprint},
        build=lambda into: _write(folder, into, config),
    )


class _Rows(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the documents of a folder, one place each: about 70 bytes a document."""

    groups: list[str]
    group: npt.NDArray[np.int64]
    """Number in `groups`."""
    length: npt.NDArray[np.int64]
    """Bytes of the text."""
    quality: npt.NDArray[np.float64]
    held: npt.NDArray[np.bool_]
    digest: npt.NDArray[np.void]
    """sha256 of the text, 32 bytes."""


def _read(folder: Path, by: str) -> _Rows:
    numbers: dict[str, int] = {}
    found: dict[str, list[Any]] = {name: [] for name in ("group", "length", "quality", "held")}
    digests = bytearray()
    for table in read_tables(folder, columns=[by, "text", "quality", "split", "sha256"]):
        names = table.column(by).to_pylist()
        found["group"].append(np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64))
        found["length"].append(values(pc.binary_length(table.column("text"))).astype(np.int64))
        found["quality"].append(values(table.column("quality")))
        found["held"].append(np.array([side == "validation" for side in table.column("split").to_pylist()], dtype=bool))
        digests += bytes.fromhex("".join(table.column("sha256").to_pylist()))
    columns = {name: np.concatenate(parts) for name, parts in found.items()}
    return _Rows(groups=[*numbers], digest=np.frombuffer(bytes(digests), dtype="V32"), **columns)


def _write(folder: Path, out: Path, config: MixtureConfig) -> Counts:
    rows = _read(folder, config.by)
    train = np.flatnonzero(~rows.held)
    sums = np.bincount(rows.group[train], weights=rows.length[train], minlength=len(rows.groups))
    present = np.bincount(rows.group[train], minlength=len(rows.groups)) > 0
    sizes = {name: int(sums[number]) for number, name in enumerate(rows.groups) if present[number]}
    epochs = plan(sizes, config)
    times = np.zeros(len(rows.group), dtype=np.int64)
    for number, name in enumerate(rows.groups):
        if name in epochs:
            members = train[rows.group[train] == number]
            times[members] = _draw(rows, members, epochs[name], config.seed)
    order = _order(rows, times, config)
    held = np.flatnonzero(rows.held)
    pieces = _reordered(folder, out / "work", np.concatenate([order, held]), rows.length, config.memory)
    num_shards = write_shards(out, pieces, shard_bytes=config.shard_bytes)
    counts: dict[str, int | float | str] = {
        "documents": len(order) + len(held),
        "train": len(order),
        "validation": len(held),
        "bytes": int(rows.length[order].sum()),
        "shards": num_shards,
    }
    return counts | {f"epochs: {name}": round(value, 4) for name, value in sorted(epochs.items())}


def _draw(rows: _Rows, members: npt.NDArray[np.int64], epochs: float, seed: int) -> npt.NDArray[np.int64]:
    """(members,) How often each is seen: whole epochs all, the rest of the last one the first in an order by the
    seed.
    """
    whole = int(epochs)
    times = np.full(len(members), whole, dtype=np.int64)
    left = (epochs - whole) * float(rows.length[members].sum())
    if left <= 0:
        return times
    for place in np.argsort(_keys(rows, members, f"{seed} draw"), kind="stable"):
        size = int(rows.length[members[place]])
        if left < size / 2:
            break
        times[place] += 1
        left -= size
    return times


def _order(rows: _Rows, times: npt.NDArray[np.int64], config: MixtureConfig) -> npt.NDArray[np.int64]:
    """The documents as often as they are seen, by the seed alone, or pass after pass by their rank."""
    passes = [np.flatnonzero(times > number) for number in range(int(times.max(initial=0)))]
    if not passes:
        return np.zeros(0, dtype=np.int64)
    seen = np.concatenate(passes)
    keys = [_keys(rows, members, f"{config.seed} order {number}") for number, members in enumerate(passes)]
    if config.order == "seed":
        return seen[np.lexsort((seen, np.concatenate(keys)))]
    rank = rows.length if config.order == "length" else rows.quality
    number = np.repeat(np.arange(len(passes)), [len(members) for members in passes])
    return seen[np.lexsort((seen, np.concatenate(keys), rank[seen], number))]


def _keys(rows: _Rows, members: npt.NDArray[np.int64], what: str) -> npt.NDArray[np.uint64]:
    """(members,) A number that depends on `what` and the text alone."""
    begun = hashlib.sha256(f"{what} ".encode())
    pieces = []
    for digest in rows.digest[members]:
        key = begun.copy()
        key.update(digest.tobytes().hex().encode())
        pieces.append(key.digest()[:8])
    return np.frombuffer(b"".join(pieces), dtype=">u8").astype(np.uint64)


def _reordered(
    folder: Path, work: Path, order: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], memory: int
) -> Iterator[pa.Table]:
    """The documents of `folder` in `order`, of which each may be named more than once.

    Documents are dealt to files by where they go, each file small enough to be put in order in memory: half of
    `memory`, or a 256th of all where that is more.
    """
    ends = np.cumsum(lengths[order])
    limit = max(memory // 2, int(ends[-1]) // _FILES + 1) if len(order) else 1
    bucket = (ends - lengths[order]) // limit
    by_row = np.argsort(order, kind="stable")
    sorted_rows = order[by_row]
    schema = SCHEMA.append(pa.field("place", pa.int64()))
    work.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        writers: dict[int, Any] = {}
        first = 0
        for table in read_tables(folder):
            begin, end = np.searchsorted(sorted_rows, [first, first + len(table)])
            places = by_row[begin:end]
            for number in np.unique(bucket[places]):
                mine = places[bucket[places] == number]
                picked = table.select(SCHEMA.names).cast(SCHEMA).take(integers(order[mine] - first))
                if (writer := writers.get(int(number))) is None:
                    target = stack.enter_context(pa.OSFile(str(work / f"{number}.arrow"), "wb"))
                    writer = writers[int(number)] = stack.enter_context(pa.ipc.new_stream(target, schema))
                writer.write_table(picked.append_column("place", integers(mine)))
            first += len(table)
    for number in sorted(writers):
        with pa.OSFile(str(work / f"{number}.arrow"), "rb") as file, pa.ipc.open_stream(file) as reader:
            dealt = reader.read_all()
        places = np.argsort(values(dealt.column("place")))
        for start in range(0, len(places), _PIECE):
            yield dealt.select(SCHEMA.names).take(integers(places[start : start + _PIECE]))
        del dealt
    shutil.rmtree(work)
