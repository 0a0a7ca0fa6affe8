"""Nearest vectors: the three kinds of FAISS index beside pgvector, same vectors, same queries, k = 10.

The vectors are drawn around centres, as embeddings of code are. Recall beside an exact search comes first (at least
0.95 everywhere) and stands in the report. Single queries through our own adapters, so what a store costs over its
socket is in it. Not Milvus: Milvus Lite, which runs here, takes minutes to load so many vectors. pgvector is skipped
where it is not installed.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.encode.servers import PASSWORD, running_postgres

from highrise.encode.adapters.faiss import FaissIndex, write_faiss
from highrise.encode.store import StoredRow, open_store

NUM_VECTORS, DIMENSION, NUM_QUERIES, K = 20_000, 384, 200, 10
Search = Callable[[np.ndarray], list[int]]


@functools.cache
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, queries, and the numbers of the ten nearest of each query."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(500, DIMENSION)).astype(np.float32)

    def draw(count: int) -> np.ndarray:
        values = centres[random.integers(len(centres), size=count)]
        values = values + 0.6 * random.normal(size=(count, DIMENSION)).astype(np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    vectors, queries = draw(NUM_VECTORS), draw(NUM_QUERIES)
    return vectors, queries, np.argsort(-(queries @ vectors.T), axis=1)[:, :K]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed; it comes with the extra stores")
    with running_postgres() as address:
        yield address


@pytest.fixture
def search(
    who: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any
) -> Iterator[tuple[Search, float]]:
    """How to ask `who`, and the seconds it took to build."""
    vectors, _, _ = data()
    if who.startswith("faiss"):
        limits = {"flat": (1 << 30, 1 << 30), "hnsw-sq8": (0, 1 << 30), "ivf-pq": (0, 0)}[who.removeprefix("faiss ")]
        started = time.monotonic()
        write_faiss(tmp_path / "index", vectors, flat_up_to=limits[0], graph_up_to=limits[1], threads=1)
        seconds = time.monotonic() - started
        index = FaissIndex(tmp_path / "index")
        yield (lambda query: index.search(query, K).tolist()), seconds
        return
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    url = f"{request.getfixturevalue('postgres')}?table=bench"
    store = open_store(url, dimension=DIMENSION, create=True)
    rows = [StoredRow(f"{number:032x}", "", "", "python", True) for number in range(NUM_VECTORS)]
    started = time.monotonic()
    store.upsert(rows, vectors)
    seconds = time.monotonic() - started
    yield (lambda query: [int(id, 16) for id in store.search(query, K)]), seconds
    store.close()


@pytest.mark.parametrize("who", ["faiss flat", "faiss hnsw-sq8", "faiss ivf-pq", "pgvector"])
def test_nearest(benchmark: Any, who: str, search: tuple[Search, float]) -> None:
    ask, seconds = search
    _, queries, nearest = data()
    found = [ask(query) for query in queries]
    recall = sum(len(set(one) & set(right)) for one, right in zip(found, nearest.tolist(), strict=False)) / (
        K * len(found)
    )
    assert recall >= 0.95, (who, recall)
    turn = itertools.cycle(queries)
    benchmark.pedantic(lambda: ask(next(turn)), rounds=5, iterations=len(queries), warmup_rounds=0)
    name = {"faiss hnsw-sq8": "highrise", "faiss flat": "highrise, flat", "faiss ivf-pq": "highrise, ivf-pq"}.get(
        who, who
    )
    note = f"recall {recall:.3f}, built in {seconds:.1f} s"
    benchmark.extra_info.update({"path": "nearest-20k", "who": name, "amount": 1, "unit": "queries", "note": note})
