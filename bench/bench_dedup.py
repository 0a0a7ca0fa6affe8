"""Text to near-duplicate clusters, beside rensa, gaoya, datasketch, datatrove and text-dedup: same texts, word 5-grams,
128 places, 16 bands of 8, one thread.

Recall, precision and the share of equal texts found stand beside every rate, and ours are asserted. rensa, gaoya and
datasketch verify their candidates by estimate at 0.8, in the best way their interface has; datatrove and text-dedup
join whatever shares a band. These two run in an environment of their own (`bench/peers.py`) and count their own CPU
seconds, without imports. A peer that is not installed is skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import peers
from bench.dedup_corpus import (
    BANDS,
    LIMIT,
    PLACES,
    ROWS,
    SETTINGS,
    THRESHOLD,
    corpus,
    judge,
    megabytes,
    synthetic,
)

from highrise.core.native import rust
from highrise.data import Deduplicator, deduplicate, frequent_lines, repeated_spans
from highrise.data.duplicates import settings, signatures

_WORD = re.compile(r"\w+")


def shingles(text: str) -> list[str]:
    words = _WORD.findall(text)
    return [" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))]


def components(count: int, pairs: Any) -> list[int]:
    parent = list(range(count))

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for i, j in pairs:
        a, b = find(i), find(j)
        parent[max(a, b)] = min(a, b)
    return [find(item) for item in range(count)]


def highrise(texts: list[str]) -> list[int]:
    labels: list[int] = deduplicate(texts, threshold=THRESHOLD, num_perm=PLACES, threads=1).cluster.tolist()
    return labels


def rensa(texts: list[str]) -> list[int]:
    from rensa import RMinHash, RMinHashLSH

    sketches = RMinHash.from_token_sets([shingles(text) for text in texts], PLACES, 42)
    index = RMinHashLSH(THRESHOLD, PLACES, BANDS)
    index.insert_many(sketches)
    found = index.query_all(sketches)
    near = (
        (i, j)
        for i, others in enumerate(found)
        for j in others
        if j < i and sketches[i].jaccard(sketches[j]) >= THRESHOLD
    )
    return components(len(texts), near)


def gaoya(texts: list[str]) -> list[int]:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(32, THRESHOLD, BANDS, ROWS, PLACES, "word", False, (5, 5))
    for i, text in enumerate(texts):
        index.insert_document(i, text)
    return components(len(texts), ((i, j) for i, text in enumerate(texts) for j in index.query(text)))


def datasketch(texts: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=PLACES, params=(BANDS, ROWS))
    sketches = MinHash.bulk([[s.encode() for s in set(shingles(text))] for text in texts], num_perm=PLACES)
    for i, sketch in enumerate(sketches):
        index.insert(i, sketch)
    pairs = (
        (i, j) for i, s in enumerate(sketches) for j in index.query(s) if j < i and s.jaccard(sketches[j]) >= THRESHOLD
    )
    return components(len(texts), pairs)


class Clock:
    """CPU seconds of this process, and what a peer in another one says it used."""

    def __init__(self) -> None:
        self.elsewhere = 0.0

    def __call__(self) -> float:
        return time.process_time() + self.elsewhere


CLOCK = Clock()


def elsewhere(who: str) -> Callable[[list[str]], list[int]]:
    """A peer in the environment of the peers; its own count of CPU seconds is added to the clock."""

    def run(texts: list[str]) -> list[int]:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.jsonl"), Path(folder, "out.json")
            with source.open("w") as file:
                file.writelines(json.dumps(text) + "\n" for text in texts)
            script = Path(__file__).with_name("peer_dedup.py")
            command = [peers.python(), str(script), who, str(source), str(target)]
            subprocess.run(command, check=True, capture_output=True)
            found = json.loads(target.read_text())
        CLOCK.elsewhere += found["seconds"]
        labels: list[int] = found["labels"]
        return labels

    return run


PEERS = {
    **{"highrise": highrise, "rensa": rensa, "gaoya": gaoya, "datasketch": datasketch},
    **{who: elsewhere(who) for who in ("datatrove", "text-dedup")},
}


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize("who", list(PEERS))
def test_text_to_clusters(benchmark: Any, who: str) -> None:
    if who in ("datatrove", "text-dedup"):
        peers.python()
    elif who != "highrise":
        pytest.importorskip(who)
    texts, _ = corpus()
    rounds = 5 if who == "highrise" else 1
    labels = benchmark.pedantic(PEERS[who], args=(texts,), rounds=rounds, warmup_rounds=rounds // 5)
    found = judge(labels)
    benchmark.extra_info.update(path="near-duplicates", who=who, amount=megabytes(), unit="MB")
    note = f"recall {found.recall:.4f}, wrong pairs {found.wrong:.4f}, pairs at 0.8 {found.good:.4f}"
    benchmark.extra_info.update(note=f"{note}, equal {found.equal:.4f}")
    if who == "highrise":
        assert found.recall >= 0.98
        assert found.wrong <= 0.003
        assert found.equal == 1


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("who", ["highrise", "rensa"])
def test_signatures_from_ready_shingles(benchmark: Any, who: str) -> None:
    """Signatures alone, from the same sets of 64-bit hashes."""
    texts, _ = corpus()
    ready = [sorted(set(rust.data.shingle_hashes(text.encode(), SETTINGS).tolist())) for text in texts]
    if who == "highrise":
        marks = np.cumsum([0, *map(len, ready)], dtype=np.int64)
        hashes = np.concatenate([np.array(found, dtype=np.uint64) for found in ready])
        one = settings(threads=1)
        rows = benchmark.pedantic(
            lambda: rust.data.signatures_of_shingles(hashes, marks, one), rounds=5, warmup_rounds=1
        )
        assert (rows == signatures(texts, threads=1)).all()
    else:
        sketch = pytest.importorskip("rensa").RMinHash
        rows = benchmark.pedantic(
            lambda: sketch.digest_matrix_from_token_hash_sets(ready, PLACES, 42), rounds=5, warmup_rounds=1
        )
        assert rows.len() == len(texts)
    benchmark.extra_info.update(path="minhash-from-shingles", who=who, amount=megabytes(), unit="MB")


@pytest.mark.benchmark(timer=time.process_time)
def test_signatures_from_text(benchmark: Any) -> None:
    texts, _ = corpus()
    benchmark.pedantic(lambda: signatures(texts, threads=1), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(path="minhash-from-text", who="highrise", amount=megabytes(), unit="MB")


WORK = {"near-duplicates": deduplicate, "signatures": signatures}


@pytest.mark.parametrize("what", list(WORK))
@pytest.mark.parametrize("threads", [1, 2])
def test_threads(benchmark: Any, what: str, threads: int) -> None:
    """Wall time: means something on idle cores only."""
    texts, _ = corpus(10 * LIMIT)
    benchmark.pedantic(lambda: WORK[what](texts, threads=threads), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(path=f"{what}-threads", who=f"highrise {threads}", unit="MB")
    benchmark.extra_info.update(amount=megabytes(10 * LIMIT))


@pytest.mark.parametrize("what", list(WORK))
def test_two_threads_by_cpu_time(what: str) -> None:
    """What two idle cores would gain, on a busy machine too: while two threads work the calling one waits, so its own
    CPU time is the part that does not divide; the rest is taken from one queue in small chunks.
    """
    texts, _ = corpus(10 * LIMIT)
    gains = []
    for _ in range(6):
        began = time.process_time()
        WORK[what](texts, threads=1)
        one = time.process_time() - began
        began, alone = time.process_time(), time.thread_time()
        WORK[what](texts, threads=2)
        alone = time.thread_time() - alone
        gains.append(one / (alone + (time.process_time() - began - alone) / 2))
    gain = float(np.median(gains[1:]))
    print(f"{what}: two threads are worth {gain:.2f} of one ({min(gains[1:]):.2f} to {max(gains[1:]):.2f})")
    assert gain >= 1.8


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("count", [10_000, 100_000, 300_000])
def test_growth(benchmark: Any, count: int) -> None:
    texts = synthetic(count)
    found = benchmark.pedantic(lambda: deduplicate(texts, threads=1), rounds=1)
    assert abs(int(found.keep.sum()) - count * 2 // 3) <= count // 500
    benchmark.extra_info.update(path=f"near-duplicates-{count}", who="highrise", amount=count, unit="texts")


@pytest.mark.benchmark(timer=time.process_time)
def test_in_batches(benchmark: Any) -> None:
    texts, _ = corpus()

    def feed() -> Any:
        index = Deduplicator(threads=1)
        for start in range(0, len(texts), 100):
            index.add(texts[start : start + 100])
        return index.cluster

    labels = benchmark.pedantic(feed, rounds=3, warmup_rounds=1)
    assert (labels == deduplicate(texts, threads=1).cluster).all()
    benchmark.extra_info.update(path="near-duplicates-in-batches", who="highrise", amount=megabytes(), unit="MB")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("what", ["spans", "lines"])
def test_repeats(benchmark: Any, what: str) -> None:
    texts, _ = corpus()
    work = repeated_spans if what == "spans" else lambda texts: frequent_lines(texts, threads=1)
    found = benchmark.pedantic(work, args=(texts,), rounds=3, warmup_rounds=1)
    assert found.bytes > 1_000_000
    benchmark.extra_info.update(path=f"repeated-{what}", who="highrise", amount=megabytes(), unit="MB")
