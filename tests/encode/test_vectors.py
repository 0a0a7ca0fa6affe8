"""The HNSW graph against an exact search, and blocks that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from highrise.core.errors import InputError
from highrise.encode.adapters.faiss import FaissIndex, write_faiss
from highrise.encode.vectors import Vectors, embed_within_budget, key_of, read_vectors, write_vectors
from tests.encode.test_index import TopicEmbedder
from tests.reference.nearest import nearest


def clustered(count: int, *, dimension: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(count // 50 + 1, dimension))
    values = centres[random.integers(len(centres), size=count)] + 0.7 * random.normal(size=(count, dimension))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def recall(path: Path, values: np.ndarray, queries: np.ndarray, *, allowed: np.ndarray | None = None) -> float:
    index = FaissIndex(path)
    found = [set(index.search(query, 10, allowed=allowed).tolist()) for query in queries]
    wanted = [set(nearest(values, query, 10, allowed=allowed)) for query in queries]
    return sum(len(a & b) for a, b in zip(found, wanted, strict=True)) / sum(len(b) for b in wanted)


def test_flat_is_exact(tmp_path: Path) -> None:
    values = clustered(2000, dimension=32)
    assert write_faiss(tmp_path / "i", values, flat_up_to=2000, threads=1) == "flat"
    few = np.arange(2000) % 50 == 0
    assert recall(tmp_path / "i", values, values[::100]) == 1
    assert recall(tmp_path / "i", values, values[::100], allowed=few) == 1


def test_the_graph_finds_nearly_all(tmp_path: Path) -> None:
    values = clustered(3000, dimension=64)
    assert write_faiss(tmp_path / "i", values, flat_up_to=2999, threads=1) == "hnsw-sq8"
    half = np.arange(3000) % 2 == 0
    assert recall(tmp_path / "i", values, values[::100]) >= 0.95
    assert recall(tmp_path / "i", values, values[::100], allowed=half) >= 0.9


def test_the_lists_find_nearly_all(tmp_path: Path) -> None:
    values = clustered(3000, dimension=64)
    assert write_faiss(tmp_path / "i", values, flat_up_to=0, graph_up_to=2999, threads=1) == "ivf-pq"
    half = np.arange(3000) % 2 == 0
    assert recall(tmp_path / "i", values, values[::100]) >= 0.95
    assert recall(tmp_path / "i", values, values[::100], allowed=half) >= 0.9
    few = np.arange(3000) == 17
    assert FaissIndex(tmp_path / "i").search(values[17], 10, allowed=few).tolist() == [17]


def test_lists_of_few_vectors_of_an_odd_dimension(tmp_path: Path) -> None:
    values = clustered(40, dimension=6)
    assert write_faiss(tmp_path / "i", values, flat_up_to=0, graph_up_to=0, threads=1) == "ivf-pq"
    assert FaissIndex(tmp_path / "i").search(values[3], 1).tolist() == [3]


@pytest.mark.slow
def test_the_graph_finds_nearly_all_of_many(tmp_path: Path) -> None:
    values = clustered(40_000, dimension=384)
    write_faiss(tmp_path / "i", values, flat_up_to=20_000, threads=2)
    assert recall(tmp_path / "i", values, values[::400]) >= 0.95


def test_a_damaged_index_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="damaged"):
        FaissIndex(tmp_path / "i")
    with pytest.raises(InputError, match="damaged"):
        read_vectors(tmp_path)


def test_vectors_come_back_as_they_went(tmp_path: Path) -> None:
    keys = [key_of(name) for name in "abc"]
    write_vectors(tmp_path, Vectors(keys=keys, values=clustered(3, dimension=8)))
    back = read_vectors(tmp_path)
    assert back.keys == keys
    np.testing.assert_array_equal(back.values, clustered(3, dimension=8))


def test_a_block_that_cannot_be_read_is_computed_again(tmp_path: Path) -> None:
    texts = ["open a file", "a socket"]
    keys = [key_of(text) for text in texts]

    def run() -> tuple[Vectors, TopicEmbedder]:
        embedder = TopicEmbedder()
        return embed_within_budget(embedder, keys, texts.__getitem__, budget=9, folder=tmp_path), embedder

    first, _ = run()
    again, embedder = run()
    assert embedder.texts == []
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:100])
    mended, embedder = run()
    assert embedder.texts == texts
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.values, mended.values)
