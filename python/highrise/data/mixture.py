"""Floor 2, mixture: how often each document is seen in training: weights, epochs and temperature by source, language
or repository.

A group of s bytes gets a share of the budget in proportion to weight * s^(1 / temperature): temperature 1 leaves the
proportions, larger ones raise small groups (Conneau et al., arXiv 1911.02116, section 3.1). No group is seen more
often than `max_epochs`; what it cannot fill goes to the others. The order depends on the seed and the texts alone; as a
curriculum (Bengio et al., ICML 2009) each pass goes from short to long texts, or from low to high quality.
Held-out documents are passed on as they are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from highrise.core.config import Config
from highrise.core.errors import ConfigError
from highrise.core.manifest import Counts, Manifest, build_stage
from highrise.data.shards import data_manifest, read_tables, write_shards

__all__ = ["MixtureConfig", "mix", "plan"]


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

    def __post_init__(self) -> None:
        if any(not weight >= 0 for weight in self.weights.values()):
            raise ConfigError(f"a weight of {self.weights} is below 0; use 0 to leave a group out")
        for name in ("temperature", "epochs", "max_epochs", "shard_bytes"):
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


def _write(folder: Path, out: Path, config: MixtureConfig) -> Counts:
    table = pa.concat_tables([*read_tables(folder)])
    groups = table.column(config.by).to_pylist()
    digests = table.column("sha256").to_pylist()
    lengths = pc.binary_length(table.column("text")).to_pylist()
    held = [row for row, side in enumerate(table.column("split").to_pylist()) if side == "validation"]
    members: dict[str, list[int]] = defaultdict(list)
    for row in sorted(set(range(len(table))) - set(held)):
        members[groups[row]].append(row)
    sizes = {name: sum(lengths[row] for row in rows) for name, rows in members.items()}
    epochs = plan(sizes, config)
    ranks = {"seed": None, "length": lengths, "quality": table.column("quality").to_pylist()}[config.order]
    seen: list[tuple[tuple[float, float], bytes, int]] = []
    for name in sorted(members):
        for row, times in _draw(members[name], digests, lengths, epochs[name], config.seed).items():
            for time in range(times):
                place = (0.0, 0.0) if ranks is None else (float(time), float(ranks[row]))
                seen.append((place, _key(config.seed, f"order {time}", digests[row]), row))
    order = [row for _, _, row in sorted(seen)]
    pieces = (table.take(pa.array(rows)) for rows in np.array_split([*order, *held], max(1, len(order) // 2_000)))
    num_shards = write_shards(out, pieces, shard_bytes=config.shard_bytes)
    counts: dict[str, int | float | str] = {
        "documents": len(order) + len(held),
        "train": len(order),
        "validation": len(held),
        "bytes": sum(lengths[row] for row in order),
        "shards": num_shards,
    }
    return counts | {f"epochs: {name}": round(value, 4) for name, value in sorted(epochs.items())}


def _draw(rows: list[int], digests: list[str], lengths: list[int], epochs: float, seed: int) -> dict[int, int]:
    """How often each row is seen: whole epochs all, the rest of the last one the first in an order by the seed."""
    whole = int(epochs)
    times = dict.fromkeys(rows, whole)
    left = (epochs - whole) * sum(lengths[row] for row in rows)
    for row in sorted(rows, key=lambda row: _key(seed, "draw", digests[row])):
        if left < lengths[row] / 2:
            break
        times[row] += 1
        left -= lengths[row]
    return times


def _key(seed: int, what: str, digest: str) -> bytes:
    return hashlib.sha256(f"{seed} {what} {digest}".encode()).digest()
