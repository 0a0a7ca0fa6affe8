"""Floor 2, adapter of Ray: near-duplicates of a Ray Dataset.

Blocks are Arrow tables in the object store; rows meet in tasks that take their share of every block. The tables go
through the same native functions as on one machine. Needs Ray 2.40 or later, and Highrise installed on the nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from highrise.data.distributed import deduplicate_frame
from highrise.data.duplicates import Equal, Verify, settings

__all__ = ["RayEngine", "deduplicate"]

_MIX = np.uint64(0x9E3779B97F4A7C15)


def deduplicate(
    dataset: ray.data.Dataset,
    *,
    id_column: str = "id",
    text_column: str = "text",
    partitions: int | None = None,
    threshold: float = 0.8,
    num_perm: int = 128,
    seed: int = 0,
    verify: Verify = "borderline",
    shingle: str = "5 words",
    equal: Equal = "bytes",
    slack: float | None = 0.03,
    bands: tuple[int, int] | None = None,
) -> ray.data.Dataset:
    """For each row id, cluster (the smallest id of its cluster) and keep; arguments as of `highrise.data.deduplicate`.

    Ids are int64 and all different. `partitions` (default: the number of blocks) says in how many parts rows meet; a
    task holds one part, about the signatures (0.7 kB a text) of its share.
    """
    chosen = settings(
        threshold=threshold,
        num_perm=num_perm,
        threads=1,
        seed=seed,
        verify=verify,
        shingle=shingle,
        equal=equal,
        slack=slack,
        bands=bands,
    )
    blocks = dataset.select_columns([id_column, text_column]).to_arrow_refs()
    engine = RayEngine(partitions or len(blocks))
    texts = [ray.remote(_renamed).remote(block, id_column, text_column) for block in blocks]
    return ray.data.from_arrow_refs(deduplicate_frame(engine, texts, chosen))


def _renamed(table: Any, id_column: str, text_column: str) -> Any:
    return pa.table({"id": table[id_column].cast(pa.int64()), "text": table[text_column]})


def _mapped(table: Any, step: Callable[[Any], Any], schema: Any) -> Any:
    return step(table).cast(schema)


def _split(table: Any, key: str, parts: int) -> Any:
    """The rows of each part."""
    part = _part_of(table[key].to_numpy(), parts)
    tables = [table.filter(pa.array(part == number)) for number in range(parts)]
    return tables[0] if parts == 1 else tuple(tables)


def _part_of(keys: Any, parts: int) -> Any:
    mixed = keys.astype(np.int64).view(np.uint64) * _MIX
    return (mixed >> np.uint64(33)) % np.uint64(parts)


def _met(step: Callable[..., Any], schema: Any, counts: tuple[int, ...], *tables: Any) -> Any:
    sides, start = [], 0
    for count in counts:
        sides.append(pa.concat_tables(tables[start : start + count]))
        start += count
    return step(*sides).cast(schema)


class RayEngine:
    """The engine of `distributed.py` over lists of references to Arrow tables."""

    def __init__(self, parts: int) -> None:
        self.parts = max(parts, 1)

    def map(self, frame: list[Any], step: Callable[[Any], Any], schema: Any) -> list[Any]:
        """A task a block."""
        task = ray.remote(_mapped)
        return [task.remote(block, step, schema) for block in frame]

    def group(self, frame: list[Any], key: str, step: Callable[[Any], Any], schema: Any) -> list[Any]:
        """A task a block to split it, a task a part."""
        split, task = self._split(frame, key), ray.remote(_met)
        return [task.remote(step, schema, (len(frame),), *[row[part] for row in split]) for part in range(self.parts)]

    def meet(
        self,
        left: list[Any],
        left_key: str,
        right: list[Any],
        right_key: str,
        step: Callable[[Any, Any], Any],
        schema: Any,
    ) -> list[Any]:
        """A task a block to split it, a task a part of both."""
        lefts, rights = self._split(left, left_key), self._split(right, right_key)
        counts, task = (len(left), len(right)), ray.remote(_met)
        return [
            task.remote(step, schema, counts, *[row[part] for row in lefts], *[row[part] for row in rights])
            for part in range(self.parts)
        ]

    def _split(self, frame: list[Any], key: str) -> list[list[Any]]:
        task = ray.remote(_split).options(num_returns=self.parts)
        found = [task.remote(block, key, self.parts) for block in frame]
        return [[row] if self.parts == 1 else list(row) for row in found]

    def union(self, frames: list[list[Any]]) -> list[Any]:
        """The blocks of all."""
        return [block for frame in frames for block in frame]

    def keep(self, frame: list[Any]) -> list[Any]:
        """Blocks are computed once as it is."""
        return frame

    def collect(self, frame: list[Any]) -> Any:
        """The rows here."""
        return pa.concat_tables(ray.get(frame))
