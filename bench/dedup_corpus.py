"""Corpora of the de-duplication benchmarks, with the exact similarity of all pairs that can be similar."""

from __future__ import annotations

import functools
import random
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from highrise.core.native import rust
from highrise.data.duplicates import settings

SETTINGS = settings()
THRESHOLD, PLACES, BANDS, ROWS = 0.8, 128, 16, 8
LIMIT = 12_000_000


@functools.cache
def corpus(limit: int = LIMIT) -> tuple[list[str], list[list[int]]]:
    """Texts, and the families of indices whose members are edited copies of one file of the standard library."""
    generator = random.Random(11)
    texts: list[str] = []
    families: list[list[int]] = []
    size = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" in path.parts or size > limit:
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
def megabytes(limit: int = LIMIT) -> float:
    return sum(len(text.encode()) for text in corpus(limit)[0]) / 1e6


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


@functools.cache
def similarity(left: int, right: int) -> float:
    texts, _ = corpus()
    found = true_pairs().get((left, right))
    if found is not None:
        return found
    if texts[left] == texts[right]:
        return 1.0
    exact: float = rust.data.exact_jaccard(texts[left].encode(), texts[right].encode(), SETTINGS)
    return exact


class Judged(NamedTuple):
    """Shares by which labels are judged, each in [0, 1]."""

    recall: float
    """Of the pairs whose exact similarity is 0.85 or more, those found."""
    equal: float
    """Of the pairs of equal texts, those found."""
    wrong: float
    """Of the pairs in one cluster, those whose exact similarity is below 0.7."""
    good: float
    """Of the pairs in one cluster, those whose exact similarity is 0.8 or more."""


def judge(labels: list[int]) -> Judged:
    """Compare labels with the exact similarity of all pairs inside a family and inside a cluster."""
    texts, _ = corpus()
    wanted = [pair for pair, found in true_pairs().items() if found >= THRESHOLD + 0.05]
    equal = [(i, j) for i, j in wanted if texts[i] == texts[j]]
    clusters: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        clusters[label].append(index)
    joined = wrong = good = 0
    for members in clusters.values():
        for i in range(len(members)):
            for j in range(i):
                found = similarity(members[j], members[i])
                joined += 1
                wrong += found < THRESHOLD - 0.1
                good += found >= THRESHOLD
    return Judged(
        recall=sum(labels[i] == labels[j] for i, j in wanted) / len(wanted),
        equal=sum(labels[i] == labels[j] for i, j in equal) / len(equal),
        wrong=wrong / joined,
        good=good / joined,
    )


def synthetic(count: int) -> list[str]:
    """Texts of about 700 bytes of which a third are edited copies."""
    generator = random.Random(3)
    vocabulary = [f"word{i}" for i in range(20_000)]
    texts: list[str] = []
    for number in range(count):
        if number % 3 == 2:
            words = texts[number - 2].split(" ")
            words[generator.randrange(len(words))] = f"edit{number}"
        else:
            words = generator.choices(vocabulary, k=75)
        texts.append(" ".join(words))
    return texts
