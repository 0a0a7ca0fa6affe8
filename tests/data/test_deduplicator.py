"""A search fed in batches against one over everything, and the file it is kept in."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from highrise.core.errors import HighriseError, InputError
from highrise.data import Deduplicator, deduplicate
from highrise.data.duplicates import Verify
from tests.data.test_duplicates import chain, families


def cut(texts: list[bytes], number: int) -> list[list[bytes]]:
    generator = random.Random(number)
    ends = sorted(generator.choices(range(len(texts) + 1), k=generator.randrange(6)))
    return [texts[start:end] for start, end in zip([0, *ends], [*ends, len(texts)], strict=True)]


@given(
    st.lists(families(), min_size=1, max_size=3),
    st.integers(0, 10**6),
    st.sampled_from(["none", "estimate", "borderline", "exact"]),
    st.sampled_from([None, 0.0, 0.03]),
    st.booleans(),
)
@options(max_examples=80)
def test_batches_are_one_search(
    groups: list[list[bytes]], number: int, verify: Verify, slack: float | None, tail: bool
) -> None:
    texts = [text for group in groups for text in group] + (chain(9) if tail else [])
    random.Random(number).shuffle(texts)
    index = Deduplicator(verify=verify, slack=slack, threads=1, seed=5)
    seen: list[bytes] = []
    for batch in cut(texts, number):
        added = index.add(batch)
        seen += batch
        whole = deduplicate(seen, verify=verify, slack=slack, threads=2, seed=5)
        assert index.cluster.tolist() == whole.cluster.tolist()
        assert index.keep.tolist() == whole.keep.tolist()
        assert added.cluster.tolist() == whole.cluster[len(seen) - len(batch) :].tolist()
        assert added.keep.tolist() == whole.keep[len(seen) - len(batch) :].tolist()
    counted = index.statistics
    for name in ("texts", "bytes", "exact_duplicates", "near_duplicates", "clusters", "cut_off"):
        assert counted[name] == whole.statistics[name]


@given(families(), families(), st.sampled_from(["estimate", "borderline"]), st.sampled_from([0.03, None]))
@options(max_examples=20)
def test_a_kept_one_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
    first: list[bytes],
    second: list[bytes],
    verify: Verify,
    slack: float | None,
) -> None:
    path = tmp_path_factory.getbasetemp() / "seen.dedup"
    index = Deduplicator(verify=verify, slack=slack, threads=1, shingle="3 words", equal="spaces", threshold=0.7)
    index.add(first)
    index.save(path)
    loaded = Deduplicator.load(path, threads=1)
    assert loaded.statistics == index.statistics
    assert loaded.add(second).cluster.tolist() == index.add(second).cluster.tolist()
    assert loaded.cluster.tolist() == index.cluster.tolist()
    whole = deduplicate([*first, *second], verify=verify, slack=slack, shingle="3 words", equal="spaces", threshold=0.7)
    assert loaded.cluster.tolist() == whole.cluster.tolist()


def test_equal_texts_only() -> None:
    index = Deduplicator(threshold=None)
    assert index.add(["a", "b", "a"]).keep.tolist() == [True, True, False]
    assert index.add(["b", "c"]).cluster.tolist() == [1, 4]


def test_a_bad_batch_adds_nothing(tmp_path: Path) -> None:
    index = Deduplicator(threads=1)
    index.add(["a b c"])
    with pytest.raises(InputError, match="text 1 is a int"):
        index.add(["x", 3])
    assert len(index) == 1
    assert index.add([]).cluster.tolist() == []
    with pytest.raises(InputError, match="num_perm is 7"):
        Deduplicator(num_perm=7)
    with pytest.raises(HighriseError, match="No such file"):
        Deduplicator.load(tmp_path / "none")
    with pytest.raises(HighriseError, match="failed while writing"):
        index.save(tmp_path)


def test_a_file_that_is_not_whole_is_one_sentence(tmp_path: Path) -> None:
    index = Deduplicator(threads=1)
    index.add([f"text {i} of many words that all differ {i * i} and end" for i in range(20)])
    path = tmp_path / "seen"
    index.save(path)
    whole = path.read_bytes()
    (tmp_path / "foreign").write_bytes(b"PAR1" * 100)
    with pytest.raises(InputError, match="is no saved Deduplicator"):
        Deduplicator.load(tmp_path / "foreign")
    path.write_bytes(whole[:8] + (9).to_bytes(8, "little") + whole[16:])
    with pytest.raises(InputError, match="has version 9"):
        Deduplicator.load(path)
    generator = random.Random(3)
    for length in [0, 7, 8, 100, 200, len(whole) - 1, *generator.choices(range(len(whole)), k=40)]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"ends too early|is no saved"):
            Deduplicator.load(path)
    for place in generator.choices(range(16, len(whole)), k=100):
        changed = bytearray(whole)
        changed[place] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(InputError, match=r"is damaged|ends too early"):
            Deduplicator.load(path)
    path.write_bytes(whole + b"more")
    with pytest.raises(InputError, match="is damaged"):
        Deduplicator.load(path)


def test_a_save_replaces_the_old_file_whole(tmp_path: Path) -> None:
    index = Deduplicator(threads=1)
    index.add(["one two three four five six"])
    index.save(tmp_path / "seen")
    index.add(["one two three four five six", "seven"])
    index.save(tmp_path / "seen")
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]
    assert np.array_equal(Deduplicator.load(tmp_path / "seen").cluster, [0, 0, 2])
