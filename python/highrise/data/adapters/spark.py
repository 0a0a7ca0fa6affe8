"""Floor 2, adapter of Spark: near-duplicates of a Spark DataFrame.

Parts meet by `cogroup`, Arrow tables go through the same native functions as on one machine. Needs Spark 4 with Java
17 or later, and Highrise in the Python of the workers (`PYSPARK_PYTHON`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, functions
from pyspark.storagelevel import StorageLevel

from highrise.data.distributed import deduplicate_frame
from highrise.data.duplicates import Equal, Verify, settings

__all__ = ["SparkEngine", "deduplicate"]

_TYPES = {"int64": "bigint", "bool": "boolean", "binary": "binary", "large_binary": "binary"}
_PART = "highrise_part"


def deduplicate(
    frame: DataFrame,
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
) -> DataFrame:
    """For each row id, cluster (the smallest id of its cluster) and keep; arguments as of `highrise.data.deduplicate`.

    Ids are bigint and all different. `partitions` (default: Spark's number for shuffles) says in how many parts rows
    meet; a worker holds one part at a time, about the signatures (0.7 kB a text) of its share.
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
    session = frame.sparkSession
    parts = partitions or int(str(session.conf.get("spark.sql.shuffle.partitions", "200")))
    texts = frame.select(functions.col(id_column).cast("bigint").alias("id"), functions.col(text_column).alias("text"))
    found: DataFrame = deduplicate_frame(SparkEngine(parts), texts, chosen)
    return found


class SparkEngine:
    """The engine of `distributed.py` over Spark DataFrames."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def map(self, frame: DataFrame, step: Callable[[Any], Any], schema: Any) -> DataFrame:
        """`step` over Arrow batches."""

        def over(batches: Iterator[Any]) -> Iterator[Any]:
            for batch in batches:
                yield from step(pa.Table.from_batches([batch])).cast(_plain(schema)).to_batches()

        return frame.mapInArrow(over, _ddl(schema))

    def group(self, frame: DataFrame, key: str, step: Callable[[Any], Any], schema: Any) -> DataFrame:
        """`step` over the rows of each part of the key."""
        return self._parted(frame, key).applyInArrow(
            lambda table: step(_bare(table)).cast(_plain(schema)), _ddl(schema)
        )

    def meet(
        self,
        left: DataFrame,
        left_key: str,
        right: DataFrame,
        right_key: str,
        step: Callable[[Any, Any], Any],
        schema: Any,
    ) -> DataFrame:
        """`step` over each part of both."""
        both = self._parted(left, left_key).cogroup(self._parted(right, right_key))
        return both.applyInArrow(lambda one, two: step(_bare(one), _bare(two)).cast(_plain(schema)), _ddl(schema))

    def _parted(self, frame: DataFrame, key: str) -> Any:
        return frame.withColumn(_PART, functions.pmod(functions.xxhash64(key), functions.lit(self.parts))).groupBy(
            _PART
        )

    def union(self, frames: list[DataFrame]) -> DataFrame:
        """The rows of all."""
        whole = frames[0]
        for frame in frames[1:]:
            whole = whole.union(frame)
        return whole

    def keep(self, frame: DataFrame) -> DataFrame:
        """The same rows, computed once and kept on the workers' disks, cut off from how they were made."""
        return frame.localCheckpoint(eager=True, storageLevel=StorageLevel.MEMORY_AND_DISK)

    def collect(self, frame: DataFrame) -> Any:
        """The rows here."""
        return frame.toArrow()


def _bare(table: Any) -> Any:
    return table.drop_columns([_PART]) if _PART in table.column_names else table


def _plain(schema: Any) -> Any:
    """The schema with 32-bit offsets, which is what Spark takes back."""
    fields = [
        pa.field(field.name, pa.binary() if pa.types.is_large_binary(field.type) else field.type) for field in schema
    ]
    return pa.schema(fields)


def _ddl(schema: Any) -> str:
    return ", ".join(f"{field.name} {_TYPES[str(field.type)]}" for field in schema)
