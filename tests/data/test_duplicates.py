"""The native near-duplicate search against its slow reference, and what it promises about order, threads and inputs."""

from __future__ import annotations

import json
import random
import sysconfig
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.data.duplicates import deduplicate, signatures
from tests.reference import minhash

GOLDEN = Path(__file__).parents[1] / "golden" / "minhash.json"
PIECES = [
    "def",
    "x_1",
    "return",
    " ",
    "\n",
    "(",
    ")",
    "naïve",
    "日本語",
    "“",
    "—",
    "\x00",
    "a" * 20,
    "7",
    "é",
    "\U0001d4b3",
    "_",
    "한국",
]
pieces = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
raw = st.one_of(
    st.binary(max_size=200), pieces.map(str.encode), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
)


@given(raw)
@settings(max_examples=300, deadline=None)
def test_words_and_shingles_are_the_reference_s(text: bytes) -> None:
    assert rust.data.word_hashes(text).tolist() == [minhash.hash_word(word) for word in minhash.words(text)]
    assert rust.data.shingle_hashes(text).tolist() == minhash.shingles(text)


@given(st.lists(raw, min_size=1, max_size=4), st.sampled_from([8, 24, 128]), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_signatures_are_the_reference_s(texts: list[bytes], num_perm: int, seed: int) -> None:
    expected = [minhash.signature(text, num_perm, seed) for text in texts]
    assert signatures(texts, num_perm=num_perm, seed=seed, threads=1).tolist() == expected


@st.composite
def families(draw: st.DrawFn) -> list[bytes]:
    """Texts of which some are edited copies of others."""
    generator = random.Random(draw(st.integers(0, 10**6)))
    texts: list[bytes] = []
    for _ in range(draw(st.integers(1, 5))):
        base = [f"w{generator.randrange(40)}" for _ in range(generator.randrange(60))]
        for _ in range(draw(st.integers(1, 5))):
            copy = list(base)
            for _ in range(generator.randrange(4)):
                if copy:
                    copy[generator.randrange(len(copy))] = f"v{generator.randrange(9)}"
            texts.append(" ".join(copy).encode())
    generator.shuffle(texts)
    return texts


@given(
    families(),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.sampled_from(["estimate", "borderline", "exact"]),
    st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_clusters_are_the_reference_s(texts: list[bytes], threshold: float, verify: str, threads: int) -> None:
    found = deduplicate(texts, threshold=threshold, verify=verify, threads=threads, seed=3)  # type: ignore[arg-type]
    assert found.cluster.tolist() == minhash.clusters(texts, threshold, seed=3, verify=verify)
    assert found.keep.sum() == len(set(found.cluster.tolist()))
    statistics = found.statistics
    assert statistics["exact_duplicates"] + statistics["near_duplicates"] == len(texts) - found.keep.sum()


@given(families(), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_texts_changes_labels_only(texts: list[bytes], generator: random.Random) -> None:
    order = list(range(len(texts)))
    generator.shuffle(order)
    first = deduplicate(texts, threads=1).cluster
    second = deduplicate([texts[i] for i in order], threads=2).cluster
    groups = {frozenset(np.flatnonzero(first == label).tolist()) for label in set(first.tolist())}
    moved = {frozenset(order[i] for i in np.flatnonzero(second == label)) for label in set(second.tolist())}
    assert groups == moved


@given(st.binary(max_size=400), st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_exact_jaccard_is_the_reference_s(left: bytes, right: bytes) -> None:
    assert rust.data.exact_jaccard(left, right) == minhash.jaccard(left, right)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("num_perm", [8, 64, 128, 256])
def test_bands_are_the_reference_s(threshold: float, num_perm: int) -> None:
    assert rust.data.choose_bands(threshold, num_perm) == minhash.choose_bands(threshold, num_perm)


def test_many_alike_in_one_bucket() -> None:
    """A template filled in many ways: more borderline pairs than one pass takes on."""
    generator = random.Random(5)
    base = [f"word{i}" for i in range(200)]
    texts = []
    for _ in range(40):
        copy = list(base)
        for _ in range(4):
            copy[generator.randrange(200)] = f"x{generator.randrange(10**6)}"
        texts.append(" ".join(copy).encode())
    for threshold in (0.7, 0.8):
        assert deduplicate(texts, threshold=threshold, threads=2).cluster.tolist() == minhash.clusters(texts, threshold)


def test_the_estimate_has_the_error_it_states() -> None:
    generator = random.Random(1)
    errors = []
    for trial in range(300):
        words = [f"t{trial}_{i}" for i in range(generator.choice([12, 100, 1500]))]
        other = words[: int(len(words) * generator.uniform(0.5, 1))]
        left, right = " ".join(words).encode(), " ".join(other).encode()
        true = rust.data.exact_jaccard(left, right)
        a, b = signatures([left, right], threads=1, seed=trial)
        errors.append((float((a == b).mean()) - true) / max(np.sqrt(true * (1 - true) / 128), 0.01))
    assert abs(np.mean(errors)) < 0.2
    assert 0.6 < np.std(errors) < 1.15


def corpus() -> list[str]:
    """Files of the standard library, each with edited copies of it."""
    generator = random.Random(7)
    folder = Path(sysconfig.get_paths()["stdlib"])
    texts: list[str] = []
    for path in sorted(folder.glob("*.py"))[:120]:
        lines = path.read_text("utf-8", "replace").splitlines(keepends=True)[:400]
        texts.append("".join(lines))
        for share in (0.01, 0.03, 0.06, 0.12):
            copy = [f"changed_{generator.random()} = 1\n" if generator.random() < share else line for line in lines]
            texts.append("".join(copy))
    return texts


def test_recall_and_precision_against_exact_jaccard() -> None:
    texts = corpus()
    sets = [set(rust.data.shingle_hashes(text.encode()).tolist()) for text in texts]
    found = deduplicate(texts, threshold=0.8, threads=2).cluster
    near = missed = wrong = joined = 0
    for i in range(len(texts)):
        for j in range(i + 1, min(i + 12, len(texts))):
            union = len(sets[i] | sets[j])
            true = len(sets[i] & sets[j]) / union if union else 0.0
            near += true >= 0.85
            missed += true >= 0.85 and found[i] != found[j]
            joined += bool(found[i] == found[j])
            wrong += true < 0.7 and found[i] == found[j]
    assert near > 200
    assert missed / near <= 0.02
    assert wrong / joined <= 0.02


def test_equal_texts_and_empty_ones() -> None:
    found = deduplicate(["a b", "", "a b", " ", "", "!"], threads=1)
    assert found.cluster.tolist() == [0, 1, 0, 3, 1, 5]
    assert deduplicate([]).cluster.tolist() == []
    assert deduplicate(["same words here and there"] * 3, threshold=None).keep.tolist() == [True, False, False]


def test_rank_chooses_what_is_kept() -> None:
    texts = ["a b c", "a b c", "other", "a b c"]
    assert deduplicate(texts, rank=[3, 1, 0, 2]).keep.tolist() == [False, True, True, False]
    with pytest.raises(InputError, match="rank has 1 values for 4 texts"):
        deduplicate(texts, rank=[1])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
def test_arrow_columns(kind: pa.DataType) -> None:
    texts = ["alpha beta gamma", "", "δέλτα", "alpha beta gamma"] * 5
    values = texts if kind in (pa.string(), pa.large_string()) else [text.encode() for text in texts]
    whole = pa.array(values, kind)
    expected = deduplicate(texts).cluster.tolist()
    assert deduplicate(whole).cluster.tolist() == expected
    assert deduplicate(pa.chunked_array([whole[:3], whole[3:3], whole[3:]])).cluster.tolist() == expected
    assert deduplicate(whole[4:8]).cluster.tolist() == deduplicate(texts[4:8]).cluster.tolist()
    assert (signatures(whole) == signatures([text.encode() for text in texts])).all()
    with pytest.raises(InputError, match="1 nulls"):
        deduplicate(pa.array([*values[:2], None], kind))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deduplicate([1, 2]), "text 0 is a int"),
        (lambda: deduplicate("one text"), "one str"),
        (lambda: deduplicate(["a"], threshold=1.5), "threshold is 1.5"),
        (lambda: deduplicate(["a"], num_perm=100), "num_perm is 100"),
        (lambda: deduplicate(["a"], verify="maybe"), "verify is"),  # type: ignore[arg-type]
        (lambda: deduplicate(pa.array([1])), "type int64"),
        (lambda: deduplicate(["\ud800"]), "surrogates"),
    ],
)
def test_bad_arguments_are_sentences(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_golden_signatures() -> None:
    """The bytes of a signature never change by accident: saved ones must stay comparable."""
    golden = json.loads(GOLDEN.read_text("utf-8"))
    found = signatures(golden["texts"], num_perm=golden["num_perm"], seed=golden["seed"])
    assert found.tolist() == golden["signatures"]
