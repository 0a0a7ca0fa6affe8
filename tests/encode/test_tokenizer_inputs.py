"""Batches of every kind, files, bytes, offsets in characters, cutting, named encodings, equality, rank files out."""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import operator
import pickle
from importlib import util
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from highrise.encode.formats_tiktoken import NAMED
from tests.encode.vocabularies import as_tiktoken, as_tokenizers, corpus, made, texts


@given(ids=st.lists(st.integers(0, 511), max_size=40), text=texts(20))
def test_ids_of_any_origin_are_decoded_alike(ids: list[int], text: str) -> None:
    """Our integers, which are told by their addresses, others of equal value, arrays, and all in one list."""
    tokenizer = made("qwen2")
    ours = tokenizer.encode(text)
    ids = [*ids, *ours]
    fresh = [int(f"{one:d}") for one in ids]
    content = b"".join(tokenizer.token(one) for one in ids)
    for form in (ids, fresh, [*fresh[: len(fresh) // 2], *ids[len(fresh) // 2 :]], np.array(ids, np.uint32)):
        assert tokenizer.decode_bytes(form) == content
        assert tokenizer.decode(form) == content.decode("utf-8", "replace")
    assert tokenizer.decode(ours) == text


@settings(max_examples=50)
@given(batch=st.lists(texts(8), max_size=8), start=st.integers(0, 3))
def test_columns_give_the_ids_of_lists(batch: list[str], start: int) -> None:
    tokenizer = made("qwen2")
    expected = [tokenizer.encode(text) for text in batch]
    for column in (
        tuple(batch),
        [text.encode() for text in batch],
        pa.array(batch, pa.string()),
        pa.chunked_array([pa.array(batch[:start], pa.large_string()), pa.array(batch[start:], pa.large_string())]),
        pa.array(batch, pa.string_view()),
        pa.array([text.encode() for text in batch], pa.binary()),
        np.array(batch, dtype=object),
        (
            np.frombuffer("".join(batch).encode(), dtype=np.uint8),
            np.cumsum([0, *(len(text.encode()) for text in batch)]),
        ),
    ):
        ids, offsets = tokenizer.encode_batch(column, threads=2)
        assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected
        assert tokenizer.decode_batch(ids, offsets) == batch
    sliced = pa.array(batch, pa.string()).slice(start)
    ids, _ = tokenizer.encode_batch(sliced)
    assert ids.tolist() == functools.reduce(operator.iadd, expected[start:], [])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (["a", 3], "text 1 of the batch is of type int; give str or bytes"),
        (["a", None], "text 1 of the batch is of type NoneType"),
        (["a", b"b\xff"], "text 1 is not UTF-8 at byte 1; decode it first, or use encode_bytes"),
        ("abc", r"a batch is a list of texts, not one str; write \[text\]"),
        (5, "not a value of type int"),
        (pa.array(["a", None]), "text 1 of the column is null; fill it first"),
        (pa.array([1, 2]), "a column of type int64 holds no texts; cast it to string"),
        (np.array([["a"]]), "a batch has one dimension, this array has 2"),
        ((np.zeros(3, np.uint8), np.array([0, 9])), "text 0 runs from 0 to 9 in 3 bytes"),
        ((np.zeros(3, np.uint8), np.array([2, 1])), "text 0 runs from 2 to 1 in 3 bytes"),
        ((np.zeros(3, np.uint8), np.array([], dtype=np.int64)), "there are no offsets"),
        ((np.zeros(3, np.float32), np.array([0, 3])), "flat texts are uint8 bytes"),
        ((np.array([0xE4, 0x61], np.uint8), np.array([0, 1, 2])), "text 0 is not UTF-8 at byte 0"),
    ],
)
def test_what_is_no_batch_of_texts_is_named(batch: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made("qwen2").encode_batch(batch)


def test_offsets_of_a_batch_must_fit_its_ids() -> None:
    with pytest.raises(InputError, match="offsets must rise from 0 to the 2 ids"):
        made("qwen2").decode_batch(np.array([5, 6], np.uint32), np.array([0, 3]))
    assert made("qwen2").decode_batch([[], made("qwen2").encode("ab c")]) == ["", "ab c"]


def test_a_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for text in ("", "".join(corpus())):
        path.write_text(text, newline="")
        assert made("qwen2").encode_file(path).tolist() == made("qwen2").encode(text)
    path.write_bytes(b"abc\xff")
    with pytest.raises(InputError, match=r"text: text 0 is not UTF-8 at byte 3"):
        made("qwen2").encode_file(path)
    with pytest.raises(InputError, match=r"cannot read .*nothing: No such file"):
        made("qwen2").encode_file(tmp_path / "nothing")


@settings(max_examples=200)
@given(listed=st.lists(st.one_of(st.text("ab é\0", max_size=6), texts()), max_size=6))
def test_arrays_of_numpy_strings_are_what_their_lists_are(listed: list[str]) -> None:
    encode = made("qwen2").encode_batch
    forms = [
        np.array(listed, dtype=np.str_),
        np.array([text.encode("utf-8", "replace") for text in listed], np.bytes_),
        np.array([text[:1] for text in listed], np.str_)[::-1],
    ]
    if hasattr(np.dtypes, "StringDType"):
        forms.append(np.array([text.encode("utf-8", "replace").decode() for text in listed], np.dtypes.StringDType()))
    for array in forms:
        assert [found.tolist() for found in encode(array)] == [found.tolist() for found in encode(array.tolist())]


def test_files_are_a_batch(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b")]
    for path, text in zip(paths, ("def f(é):\n", ""), strict=True):
        path.write_text(text, "utf-8", newline="")
    ids, offsets = made("qwen2").encode_batch(paths)
    assert ids.tolist() == made("qwen2").encode("def f(é):\n")
    assert offsets.tolist() == [0, len(ids), len(ids)]
    paths[1].write_bytes(b"ab\xff")
    with pytest.raises(InputError, match=r"b is not UTF-8 at byte 2"):
        made("qwen2").encode_batch(paths)
    with pytest.raises(InputError, match=r"cannot read .*nothing: No such file"):
        made("qwen2").encode_batch([paths[0], tmp_path / "nothing"])


@settings(max_examples=100)
@given(
    content=st.one_of(
        st.binary(max_size=60), st.tuples(texts(), st.binary(), texts()).map(lambda t: t[0].encode() + t[1])
    )
)
def test_any_bytes_come_back(content: bytes) -> None:
    tokenizer = made("cl100k")
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(content)) == content
    with contextlib.suppress(UnicodeDecodeError):
        assert tokenizer.encode_bytes(content) == tokenizer.encode(content.decode())


@settings(max_examples=100)
@given(text=texts())
def test_offsets_in_characters_are_those_of_tokenizers(text: str) -> None:
    ids, spans = made("qwen2").encode_with_offsets(text, unit="characters")
    theirs = as_tokenizers("qwen2").encode(text)
    assert ids == theirs.ids
    # Where a token begins inside a character, tokenizers has the character for it too; blanks are not cut off here.
    assert spans == theirs.offsets


def test_the_unit_of_offsets_is_one_of_two() -> None:
    with pytest.raises(InputError, match='unit = "words": write "bytes" or "characters"'):
        made("qwen2").encode_with_offsets("a", unit="words")  # type: ignore[arg-type]


@settings(max_examples=150)
@given(text=texts(), limit=st.integers(0, 20), keep=st.sampled_from(["start", "end"]))
def test_truncate_keeps_as_much_as_fits(text: str, limit: int, keep: str) -> None:
    tokenizer = made("llama3")
    kept = tokenizer.truncate(text, limit, keep=keep)  # type: ignore[arg-type]
    assert text.startswith(kept) if keep == "start" else text.endswith(kept)
    assert tokenizer.count(kept) <= limit
    if tokenizer.count(text) <= limit:
        assert kept == text
    long = text * 200
    assert tokenizer.count(tokenizer.truncate(long, limit, keep=keep)) <= limit  # type: ignore[arg-type]


def test_equal_content_is_equal_and_copies_are_the_same(tmp_path: Path) -> None:
    tokenizer = made("gpt2")
    tokenizer.save(tmp_path / "a.json")
    first, second = (Tokenizer.from_file(tmp_path / "a.json") for _ in range(2))
    assert first == second and hash(first) == hash(second) and first is not second
    assert first != made("qwen2") and first != 3
    assert copy.copy(first) is first and copy.deepcopy([first])[0] is first
    content = pickle.dumps(Tokenizer.from_bytes((tmp_path / "a.json").read_bytes()))
    assert pickle.loads(content) == first


def test_ranks_out_are_what_tiktoken_reads(tmp_path: Path) -> None:
    tokenizer = made("cl100k")
    path = tmp_path / "own.tiktoken"
    path.write_bytes(tokenizer.to_ranks())
    again = Tokenizer.from_ranks(path, scheme="cl100k", specials=tokenizer.special_tokens)
    for text in corpus():
        assert again.encode(text) == as_tiktoken("cl100k").encode_ordinary(text)
    assert again.to_ranks() == path.read_bytes()


def test_named_encodings() -> None:
    with pytest.raises(InputError, match='there is no encoding "nope"; known are gpt2, r50k_base'):
        Tokenizer.named("nope")
    with pytest.raises(InputError, match=r"the rank file of r50k_base is not on this machine; put r50k_base\.tiktoken"):
        Tokenizer.named("gpt2", folder="/nonexistent")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("gpt2", "r50k_base")])
def test_named_encodings_are_tiktokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec("litellm")
    if found is None or found.origin is None:
        pytest.skip("the rank files lie in the litellm wheel, which is not installed")
    folder = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    tokenizer, theirs = Tokenizer.named(name), tiktoken.get_encoding(name)
    assert tokenizer.special_tokens == theirs._special_tokens
    for text in (*corpus(), "<|endoftext|>x"):
        assert tokenizer.encode(text) == theirs.encode(text, disallowed_special=())
        assert tokenizer.encode(text, special="all") == theirs.encode(text, allowed_special="all")
    assert pickle.loads(pickle.dumps(tokenizer)) == tokenizer
