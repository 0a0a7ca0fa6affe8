"""Text to near-duplicate clusters, beside rensa, gaoya and datasketch: same texts, word 5-grams, 128 places, 16 bands
of 8, one thread.

The corpus is the standard library with edited copies of a third of its files, so that the exact Jaccard similarity of
every pair that can be similar is known. Recall and precision are asserted before anything is timed; each peer
verifies its candidates by estimate at 0.8, in the best way its interface has. A peer that is not installed is
skipped.
"""

from __future__ import annotations

import functools
import random
import re
import sysconfig
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from highrise.core.native import rust
from highrise.data.duplicates import deduplicate, settings, signatures

SETTINGS = settings()
THRESHOLD, PLACES, BANDS, ROWS = 0.8, 128, 16, 8
LIMIT = 12_000_000
_WORD = re.compile(r"\w+")


@functools.cache
def corpus() -> tuple[list[str], list[list[int]]]:
    """Texts, and the families of indices whose members are edited copies of one file."""
    generator = random.Random(11)
    texts: list[str] = []
    families: list[list[int]] = []
    size = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" in path.parts or size > LIMIT:
            continue
        text = path.read_text("utf-8", "replace")
        lines = text.splitlines(keepends=True)
        copies = [text]
        if generator.random() < 0.33:
            for share in (0.0, 0.01, 0.02, 0.04):
                edited = [
                    f"changed_{generator.random()} = 1\n" if generator.random() < share else line for line in lines
                ]
                copies.append("".join(edited))
        families.append(list(range(len(texts), len(texts) + len(copies))))
        texts.extend(copies)
        size += sum(map(len, copies))
    return texts, families


@functools.cache
def megabytes() -> float:
    return sum(len(text.encode()) for text in corpus()[0]) / 1e6


@functools.cache
def true_pairs() -> dict[tuple[int, int], float]:
    """The exact similarity of all pairs inside a family."""
    texts, families = corpus()
    pairs = {}
    for family in families:
        sets = [set(rust.data.shingle_hashes(texts[index].encode(), SETTINGS).tolist()) for index in family]
        for i in range(len(family)):
            for j in range(i):
                together = len(sets[i] | sets[j])
                pairs[family[j], family[i]] = len(sets[i] & sets[j]) / together if together else 0.0
    return pairs


def recall_and_precision(labels: list[int]) -> tuple[float, float]:
    """Of the pairs at 0.85 or more, the share found; of the co-clustered pairs, the share truly at 0.7 or more."""
    texts, _ = corpus()
    wanted = [pair for pair, similarity in true_pairs().items() if similarity >= THRESHOLD + 0.05]
    recall = sum(labels[i] == labels[j] for i, j in wanted) / len(wanted)
    clusters: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        clusters[label].append(index)
    joined = good = 0
    for members in clusters.values():
        for i in range(len(members)):
            for j in range(i):
                pair = (members[j], members[i])
                similarity = true_pairs().get(pair)
                if similarity is None:
                    left, right = texts[pair[0]], texts[pair[1]]
                    similarity = (
                        1.0 if left == right else rust.data.exact_jaccard(left.encode(), right.encode(), SETTINGS)
                    )
                joined += 1
                good += similarity >= THRESHOLD - 0.1
    return recall, good / joined


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


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("who", ["highrise", "rensa", "gaoya", "datasketch"])
def test_text_to_clusters(benchmark: Any, who: str) -> None:
    if who != "highrise":
        pytest.importorskip(who)
    peer: Callable[[list[str]], list[int]] = globals()[who]
    texts, _ = corpus()
    rounds = 5 if who == "highrise" else 1
    labels = benchmark.pedantic(peer, args=(texts,), rounds=rounds, warmup_rounds=rounds // 5)
    recall, precision = recall_and_precision(labels)
    benchmark.extra_info.update(path="near-duplicates", who=who, amount=megabytes(), unit="MB")
    benchmark.extra_info.update(recall=round(recall, 4), precision=round(precision, 4))
    if who == "highrise":
        assert recall >= 0.98
        assert precision >= 0.98


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("who", ["highrise", "rensa"])
def test_signatures_from_ready_input(benchmark: Any, who: str) -> None:
    """Signatures alone. Ours starts from text and so does more; rensa starts from hashed shingles."""
    texts, _ = corpus()
    if who == "highrise":
        rows = benchmark.pedantic(lambda: signatures(texts, threads=1), rounds=5, warmup_rounds=1)
        assert rows.shape == (len(texts), PLACES)
    else:
        sketch = pytest.importorskip("rensa").RMinHash
        ready = [sorted(set(rust.data.shingle_hashes(text.encode(), SETTINGS).tolist())) for text in texts]
        rows = benchmark.pedantic(lambda: sketch.digest_matrix_from_token_hash_sets(ready, PLACES, 42), rounds=1)
        assert rows.len() == len(texts)
    benchmark.extra_info.update(path="minhash-signatures", who=who, amount=megabytes(), unit="MB")
