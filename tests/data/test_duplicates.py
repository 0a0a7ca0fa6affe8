"""The native near-duplicate search against its slow reference, and what it promises about order, threads and inputs."""

from __future__ import annotations

import json
import random
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.data.duplicates import Equal, Verify, deduplicate, search_texts, settings, signatures
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
SETTINGS = settings(threads=1)
SHINGLES = ["5 words", "1 word", "3 words", "7 characters", "64 characters"]
FORMS = ["bytes", "spaces", "words"]
raw = st.one_of(
    st.binary(max_size=200), pieces.map(str.encode), st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace"))
)


@given(raw, st.sampled_from(SHINGLES), st.sampled_from(FORMS))
@options(max_examples=300)
def test_words_forms_and_shingles_are_the_reference_s(text: bytes, shingle: str, equal: Equal) -> None:
    chosen = settings(shingle=shingle, equal=equal)
    assert rust.data.word_hashes(text).tolist() == [minhash.hash_word(word) for word in minhash.words(text)]
    if text.isascii() or equal != "words":  # tables of letters differ from one Unicode version to the next
        assert bytes(rust.data.form_of(text, chosen)) == minhash.form(text, equal)
        assert rust.data.shingle_hashes(text, chosen).tolist() == minhash.shingles(text, shingle, equal)
        hashed = rust.data.content_hashes([text], chosen)[0].tolist()
        assert tuple(hashed) == minhash.content(minhash.form(text, equal))


@given(st.lists(raw, min_size=1, max_size=4), st.sampled_from([8, 24, 128]), st.integers(0, 2**64 - 1))
@options(max_examples=60)
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
    st.sampled_from(["none", "estimate", "borderline", "exact"]),
    st.sampled_from(["5 words", "2 words", "9 characters"]),
    st.sampled_from(FORMS),
    st.sampled_from([None, 0.0, 0.05, 0.3]),
    st.integers(1, 3),
)
@options(max_examples=80)
def test_clusters_are_the_reference_s(
    texts: list[bytes],
    threshold: float,
    verify: Verify,
    shingle: str,
    equal: Equal,
    slack: float | None,
    threads: int,
) -> None:
    found = deduplicate(
        texts,
        threshold=threshold,
        verify=verify,
        threads=threads,
        seed=3,
        shingle=shingle,
        equal=equal,
        slack=slack,
    )
    expected = minhash.clusters(texts, threshold, seed=3, verify=verify, shingle=shingle, equal=equal, slack=slack)
    assert found.cluster.tolist() == expected
    assert found.keep.sum() == len(set(found.cluster.tolist()))
    statistics = found.statistics
    assert statistics["exact_duplicates"] + statistics["near_duplicates"] == len(texts) - found.keep.sum()
    sizes = Counter(expected)
    assert statistics["clusters"] == sum(size > 1 for size in sizes.values())
    assert statistics["largest_cluster"] == max(sizes.values())


def chain(length: int) -> list[bytes]:
    """Texts of which each is similar to the next, and the first is unlike the last."""
    words = [f"w{i}" for i in range(300 + 12 * length)]
    return [" ".join(words[12 * i : 12 * i + 300]).encode() for i in range(length)]


def test_closure_is_capped() -> None:
    texts = chain(25)
    whole = deduplicate(texts, slack=None, threads=1)
    assert whole.cluster.tolist() == [0] * 25 and whole.statistics["cut_off"] == 0
    capped = deduplicate(texts, threads=1)
    assert capped.cluster.tolist() == minhash.clusters(texts, 0.8)
    assert capped.statistics["cut_off"] > 10
    for i in range(25):
        for j in range(i):
            if capped.cluster[i] == capped.cluster[j]:
                assert minhash.jaccard(texts[i], texts[j]) > 0.5


@given(families(), st.sampled_from([0.0, 0.03, 0.3]), st.integers(1, 3))
@options(max_examples=40)
def test_one_search_tells_clusters_and_what_is_connected(texts: list[bytes], slack: float, threads: int) -> None:
    texts = [*texts, *chain(12), texts[0]]
    found, connected = search_texts(texts, settings(slack=slack, threads=threads))
    assert found.cluster.tolist() == deduplicate(texts, slack=slack, threads=1).cluster.tolist()
    assert connected.tolist() == deduplicate(texts, slack=None, threads=1).cluster.tolist()


@given(families(), st.integers(0, 10**6))
@options(max_examples=40)
def test_capped_clusters_do_not_depend_on_the_order(texts: list[bytes], number: int) -> None:
    texts = [*texts, *chain(12)]
    order = list(range(len(texts)))
    random.Random(number).shuffle(order)
    first = deduplicate(texts, threads=1, slack=0.0).cluster
    second = deduplicate([texts[i] for i in order], threads=2, slack=0.0).cluster
    groups = {frozenset(np.flatnonzero(first == label).tolist()) for label in set(first.tolist())}
    moved = {frozenset(order[i] for i in np.flatnonzero(second == label)) for label in set(second.tolist())}
    assert groups == moved


@given(families(), st.randoms())
@options(max_examples=40)
def test_the_order_of_texts_changes_labels_only(texts: list[bytes], generator: random.Random) -> None:
    order = list(range(len(texts)))
    generator.shuffle(order)
    first = deduplicate(texts, threads=1).cluster
    second = deduplicate([texts[i] for i in order], threads=2).cluster
    groups = {frozenset(np.flatnonzero(first == label).tolist()) for label in set(first.tolist())}
    moved = {frozenset(order[i] for i in np.flatnonzero(second == label)) for label in set(second.tolist())}
    assert groups == moved


@given(st.binary(max_size=400), st.binary(max_size=400))
@options(max_examples=100)
def test_exact_jaccard_is_the_reference_s(left: bytes, right: bytes) -> None:
    assert rust.data.exact_jaccard(left, right, SETTINGS) == minhash.jaccard(left, right)


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
        true = rust.data.exact_jaccard(left, right, SETTINGS)
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
    sets = [set(rust.data.shingle_hashes(text.encode(), SETTINGS).tolist()) for text in texts]
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
    assert deduplicate(whole.cast(pa.string_view())).cluster.tolist() == expected
    with pytest.raises(InputError, match="1 nulls"):
        deduplicate(pa.array([*values[:2], None], kind))


def test_numpy_columns() -> None:
    texts = ["alpha beta gamma", "", "delta", "alpha beta gamma"] * 5
    expected = deduplicate(texts).cluster.tolist()
    for kind in ("U", "S", object, np.dtypes.StringDType()):
        assert deduplicate(np.array(texts, kind)).cluster.tolist() == expected
        assert deduplicate(np.array(texts, kind)[::2]).cluster.tolist() == deduplicate(texts[::2]).cluster.tolist()
    assert deduplicate(np.array([], "S")).cluster.tolist() == []


def test_signatures_of_ready_shingles_are_those_of_texts() -> None:
    texts = [b"a b c d e f g", b"", b"one", b"a b c d e f g h " * 300]
    sets = [sorted(set(rust.data.shingle_hashes(text, SETTINGS).tolist())) for text in texts]
    marks = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    hashes = np.array([h for found in sets for h in found], dtype=np.uint64)
    assert (rust.data.signatures_of_shingles(hashes, marks, SETTINGS) == signatures(texts)).all()
    with pytest.raises(ValueError, match=r"0..99"):
        rust.data.signatures_of_shingles(hashes, np.array([0, 99]), SETTINGS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deduplicate([1, 2]), "text 0 is a int"),
        (lambda: deduplicate("one text"), "one str"),
        (lambda: deduplicate(["a"], threshold=1.5), "threshold is 1.5"),
        (lambda: deduplicate(["a"], num_perm=100), "num_perm is 100"),
        (lambda: deduplicate(["a"], verify="maybe"), "verify is"),  # type: ignore[arg-type]
        (lambda: deduplicate(["a"], equal="maybe"), "equal is"),  # type: ignore[arg-type]
        (lambda: deduplicate(["a"], shingle="five words"), 'shingle is "five words"'),
        (lambda: deduplicate(["a"], shingle="65 words"), "65 words or characters; use 1 to 64"),
        (lambda: deduplicate(["a"], slack=-1), "slack is -1"),
        (lambda: deduplicate(["a"], bands=(20, 8)), "20 bands of 8 places"),
        (lambda: deduplicate(["a"], seed=-1), "cannot look for duplicates"),
        (lambda: deduplicate(np.zeros((2, 2), "S1")), "shape"),
        (lambda: deduplicate(np.zeros(2)), "type float64"),
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
