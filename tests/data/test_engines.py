"""The steps for many machines: over plain tables here, slowly on a real local Spark and a real Ray of two nodes.

Spark needs Java 17 or later; both are skipped where they are not installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.data.distributed import _components, _pairs, deduplicate_frame
from highrise.data.duplicates import Verify, deduplicate, settings
from tests.data.test_duplicates import chain, families
from tests.data.test_spill import many


class LocalEngine:
    """The engine of `distributed.py` over lists of tables, rows parted as a real engine parts them."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def map(self, frame: list[Any], step: Callable[[Any], Any], schema: Any) -> list[Any]:
        return [step(table).cast(schema) for table in frame]

    def _split(self, frame: list[Any], key: str) -> list[Any]:
        whole = pa.concat_tables(frame)
        part = whole[key].to_numpy() % self.parts
        return [whole.filter(pa.array(part == number)) for number in range(self.parts)]

    def group(self, frame: list[Any], key: str, step: Callable[[Any], Any], schema: Any) -> list[Any]:
        return [step(table).cast(schema) for table in self._split(frame, key)]

    def meet(
        self, left: list[Any], left_key: str, right: list[Any], right_key: str, step: Callable[..., Any], schema: Any
    ) -> list[Any]:
        both = zip(self._split(left, left_key), self._split(right, right_key), strict=True)
        return [step(one, two).cast(schema) for one, two in both]

    def union(self, frames: list[list[Any]]) -> list[Any]:
        return [table for frame in frames for table in frame]

    def keep(self, frame: list[Any]) -> list[Any]:
        return frame

    def collect(self, frame: list[Any]) -> Any:
        return pa.concat_tables(frame)


def in_order(table: Any) -> tuple[list[int], list[bool]]:
    table = table.sort_by("id")
    assert table["id"].to_pylist() == list(range(len(table)))
    return table["cluster"].to_pylist(), table["keep"].to_pylist()


@given(
    st.lists(families(), min_size=1, max_size=3),
    st.sampled_from(["none", "estimate", "borderline", "exact"]),
    st.sampled_from([None, 0.03]),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
@options(max_examples=60)
def test_the_steps_find_the_clusters_of_one_machine(
    groups: list[list[bytes]], verify: Verify, slack: float | None, parts: int, number: int
) -> None:
    texts = [text for group in groups for text in group] + chain(number % 9) + [b"", b"  "]
    np.random.default_rng(number).shuffle(texts)
    ids = list(range(len(texts)))
    half = len(texts) // 2
    frame = [
        pa.table({"id": pa.array(i, pa.int64()), "text": pa.array(t, pa.binary())})
        for i, t in ((ids[:half], texts[:half]), (ids[half:], texts[half:]))
    ]
    chosen = settings(verify=verify, slack=slack, seed=2, threads=1)
    found = pa.concat_tables(deduplicate_frame(LocalEngine(parts), frame, chosen))
    expected = deduplicate(texts, verify=verify, slack=slack, seed=2, threads=1)
    assert in_order(found) == (expected.cluster.tolist(), expected.keep.tolist())


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40), st.integers(1, 3))
@options(max_examples=100)
def test_components(pairs: list[tuple[int, int]], parts: int) -> None:
    pairs = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    label = {item: item for pair in pairs for item in pair}
    for _ in label:
        for left, right in pairs:
            label[left] = label[right] = min(label[left], label[right])
    frame = [_pairs(np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs], dtype=np.int64))]
    found = pa.concat_tables(_components(LocalEngine(parts), frame))
    assert dict(zip(found["id"].to_pylist(), found["root"].to_pylist(), strict=True)) == label


def test_a_long_path_settles() -> None:
    frame = [_pairs(np.arange(999, dtype=np.int64), np.arange(1, 1000, dtype=np.int64))]
    found = pa.concat_tables(_components(LocalEngine(3), frame))
    assert set(found["root"].to_pylist()) == {0} and len(found) == 1000


def test_equal_texts_alone_need_no_cluster() -> None:
    with pytest.raises(InputError, match="threshold is None"):
        deduplicate_frame(LocalEngine(1), [], settings(threshold=None))


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return [*many(1500, 5), *(text.decode() for text in chain(20)), "", "  "]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed; it comes with the extra spark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17 or later on the path")
    builder = sql.SparkSession.builder.master("local[2]").appName("highrise-test")
    for key, value in {
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }.items():
        builder = builder.config(key, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)  # else the workers are whatever python3 the path has
        session = builder.getOrCreate()
        yield session
        session.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_spark_finds_the_clusters_of_one_machine(spark: Any, corpus: list[str]) -> None:
    from highrise.data.adapters.spark import deduplicate as on_spark

    rows = pa.table({"id": pa.array(range(len(corpus)), pa.int64()), "text": corpus})
    frame = spark.createDataFrame(rows).repartition(3)
    found = on_spark(frame, partitions=3).toArrow()
    expected = deduplicate(corpus)
    assert in_order(found) == (expected.cluster.tolist(), expected.keep.tolist())
    assert expected.statistics["cut_off"] > 0 and expected.statistics["exact_checks"] > 0


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    ray = pytest.importorskip("ray", reason="ray is not installed; it comes with the extra ray")
    pytest.importorskip("ray.data", reason="ray.data cannot be imported; it comes with the extra ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200_000_000})
    cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ray_finds_the_clusters_of_one_machine(two_nodes: None, corpus: list[str]) -> None:
    import ray

    from highrise.data.adapters.ray import deduplicate as on_ray

    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    rows = pa.table({"id": pa.array(range(len(corpus)), pa.int64()), "text": corpus})
    parts = [rows.slice(start, 600) for start in range(0, len(rows), 600)]
    dataset = ray.data.from_arrow(parts)
    found = pa.concat_tables(ray.get(on_ray(dataset, partitions=3).to_arrow_refs()))
    expected = deduplicate(corpus)
    assert in_order(found) == (expected.cluster.tolist(), expected.keep.tolist())
