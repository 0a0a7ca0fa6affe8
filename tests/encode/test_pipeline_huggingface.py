"""Every kind of tokenizer.json: ids, decoded text, special tokens, offsets and files are those of `tokenizers`."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.pipelines import KINDS, ours, theirs
from tests.encode.vocabularies import corpus, texts

MARKS = [
    "[MASK]",
    "[CLS]",
    " [MASK]",
    "<mask>",
    "<sep>  ",
    "<s>",
    "</s>",
    "<unk>",
    "naïve",
    "unnaïve",
    "▁▁",
    "▁",
    "don",
    "::",
]


def mixed() -> st.SearchStrategy[str]:
    """Texts with what the added tokens of the vocabularies look like."""
    return st.lists(st.one_of(st.sampled_from(MARKS), texts(6)), max_size=8).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(text=mixed())
def test_ids_and_text_are_those_of_tokenizers(kind: str, text: str) -> None:
    mine, other = ours(kind), theirs(kind)
    other.encode_special_tokens = False
    expected = other.encode(text, add_special_tokens=False).ids
    assert mine.encode(text, special="all") == expected
    assert mine.encode(text, special="all", add_special_tokens=True) == other.encode(text).ids
    for skip in (False, True):
        assert mine.decode(expected, skip_special=skip) == other.decode(expected, skip_special_tokens=skip)
    other.encode_special_tokens = True
    assert mine.encode(text) == other.encode(text, add_special_tokens=False).ids
    assert mine.count(text) == len(mine.encode(text))


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_real_text(kind: str) -> None:
    other = theirs(kind)
    other.encode_special_tokens = True
    for text in (*corpus(), "a" * 3000, " " * 3000 + "x", "\n" * 1000):
        assert ours(kind).encode(text) == other.encode(text, add_special_tokens=False).ids


def _every_character(step: int) -> list[str]:
    characters = [chr(code) for code in range(0, 0x110000, step) if not 0xD800 <= code < 0xE000]
    groups = (characters[start : start + 200] for start in range(0, len(characters), 200))
    return [" ".join(f"{character} a{character}b" for character in group) for group in groups]


def _compare_every_character(kind: str, step: int) -> None:
    other = theirs(kind)
    other.encode_special_tokens = True
    for text in _every_character(step):
        assert ours(kind).encode(text) == other.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_every_range_of_characters(kind: str) -> None:
    _compare_every_character(kind, 61)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_character_alone_and_in_a_word(kind: str) -> None:
    _compare_every_character(kind, 1)


@pytest.mark.parametrize("kind", ["bert cased", "llama 2", "metaspace first", "words"])
@settings(max_examples=60)
@given(text=st.text(st.sampled_from("abcXYZ 12.,'\n_é中"), max_size=40))
def test_offsets_are_those_of_tokenizers(kind: str, text: str) -> None:
    other = theirs(kind)
    other.encode_special_tokens = True
    expected = other.encode(text, add_special_tokens=False)
    ids, spans = ours(kind).encode_with_offsets(text, unit="characters")
    assert ids == expected.ids
    assert spans == expected.offsets


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(text=mixed())
def test_offsets_lie_in_the_text_in_order(kind: str, text: str) -> None:
    ids, spans = ours(kind).encode_with_offsets(text)
    assert ids == ours(kind).encode(text) and len(ids) == len(spans)
    assert all(0 <= start <= end <= len(text.encode()) for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_pickled_and_written_as_binary_is_the_same(kind: str, tmp_path: Path) -> None:
    mine = ours(kind)
    mine.save(tmp_path / "tokenizer.json")
    mine.save_binary(tmp_path / "tokenizer.hrv")
    again = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    binary = Tokenizer.from_file(tmp_path / "tokenizer.hrv")
    assert binary == mine and pickle.loads(pickle.dumps(mine)) == mine
    for text in corpus()[:5]:
        ids = mine.encode(text, special="all")
        assert again.encode(text, add_special_tokens=False).ids == ids == binary.encode(text, special="all")
        assert again.decode(ids, skip_special_tokens=False) == mine.decode(ids)


@pytest.mark.parametrize("kind", ["bert uncased", "unigram", "llama 2", "roberta"])
@settings(max_examples=50)
@given(text=texts())
def test_streamed_text_is_the_decoded_text(kind: str, text: str) -> None:
    mine = ours(kind)
    ids = mine.encode(text)
    stream = mine.decode_stream()
    streamed = "".join([stream.push(token) for token in ids]) + stream.finish()
    # tokenizers makes a replacement character for each broken byte, a stream one for each broken character.
    if "\ufffd" not in streamed:
        assert streamed == mine.decode(ids)


def test_batches_and_threads() -> None:
    mine = ours("bert uncased")
    batch = [*corpus(), "", "x"]
    expected = [mine.encode(text, add_special_tokens=True) for text in batch]
    for threads in (1, 3):
        ids, offsets = mine.encode_batch(batch, threads=threads, add_special_tokens=True)
        assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected
    array = mine.encode_array(batch[0], add_special_tokens=True)
    assert array.tolist() == expected[0]
    assert mine.count(batch[0], add_special_tokens=True) == len(expected[0])
    assert mine.count(batch[0], add_special_tokens=True, limit=5) == 6


def _changed(kind: str, path: str, value: object) -> bytes:
    content: dict[str, Any] = copy.deepcopy(json.loads(theirs(kind).to_str()))
    *parents, last = path.split(".")
    place: Any = content
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[int(last) if isinstance(place, list) else last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("bert cased", "model.type", "Transducer", "a model of type 'Transducer'; known are BPE, WordPiece"),
        ("bert cased", "model.surprise", 1, "model.surprise = '1'"),
        ("bert cased", "normalizer", {"type": "Casefold"}, "the normalizer Casefold"),
        ("bert cased", "normalizer.keep", True, "the normalizer BertNormalizer with keep = 'True'"),
        ("bert cased", "normalizer.lowercase", "yes", r"the normalizer has no usable 'lowercase' \(yes\)"),
        ("bert cased", "pre_tokenizer", {"type": "UnicodeScripts"}, "the pre_tokenizer UnicodeScripts"),
        ("bert cased", "pre_tokenizer", {"type": "ByteLevel"}, "the pre_tokenizer ByteLevel with a WordPiece model"),
        ("bert cased", "decoder", {"type": "CTC"}, "the decoder CTC"),
        ("bert cased", "post_processor", {"type": "Magic"}, "the post_processor Magic"),
        ("bert cased", "padding", {}, "it has padding; set it to null"),
        ("bert cased", "truncation", {"max_length": 3}, "it has truncation; set it to null"),
        ("llama 2", "model.dropout", 0.1, "model.dropout = 0.1; set it to null"),
        (
            "llama 2",
            "model.merges",
            [["a", "nope"]],
            'merge 0 "a nope" names a token that the vocabulary does not have',
        ),
        ("llama 2", "model.merges", [["a"]], r"merge 0 .* is not two tokens with a blank between"),
        ("roberta", "model.end_of_word_suffix", "</w>", "byte-level BPE with model.end_of_word_suffix = '</w>'"),
        ("unigram", "model.unk_id", 10**9, "model.unk_id = 1000000000 is none of"),
        ("unigram", "model.vocab.3", ["a"], r"entry 3 of its vocabulary is \"\['a'\]\""),
        ("unigram", "normalizer.normalizers.2.pattern", {"Regex": "(a"}, "the pattern cannot be used"),
        ("unigram", "normalizer.normalizers.2.pattern", {"Regex": r"\h"}, r"whose '\\\\h' is read otherwise here"),
        (
            "unigram",
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": "!"},
            "precompiled_charsmap is no base64",
        ),
        ("unigram", "normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAE="}, "shorter than its header"),
        ("unigram", "normalizer", {"type": "Precompiled", "precompiled_charsmap": "////fwAA"}, "its trie should have"),
        ("words", "model.vocab", {"a": 0, "b": 0}, "id 0 belongs to 'a' and to 'b'"),
        ("words", "model.vocab", {"a": 1 << 40}, "token ids outside 0 to"),
        ("words", "added_tokens.0.id", -4, "the added token '<unk>' has the id -4"),
        ("words", "added_tokens.0.lstrip", "x", r"is not a tokenizer.json: Expected `bool`"),
    ],
)
def test_what_is_asked_for_and_not_done_is_named(kind: str, path: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Tokenizer.from_bytes(_changed(kind, path, value), name="tokenizer.json")


def test_a_character_without_a_token_is_named() -> None:
    file = json.loads(theirs("words").to_str())
    file["model"]["unk_token"] = "<nope>"
    with pytest.raises(InputError, match=r"the vocabulary has no token for '☃', and none for what is unknown"):
        Tokenizer.from_bytes(json.dumps(file).encode()).encode("☃")


def test_bytes_that_are_no_text_have_no_ids_in_a_vocabulary_of_characters() -> None:
    assert ours("llama 2").encode_bytes("é".encode()) == ours("llama 2").encode("é")
    with pytest.raises(InputError, match="text 0 is not UTF-8 at byte 1"):
        ours("llama 2").encode_bytes(b"a\xff")


def test_spellings_and_bytes_of_tokens() -> None:
    mine = ours("llama 2")
    the = mine.id("▁the")
    assert the is not None and mine.spelling(the) == "▁the"
    assert mine.token(the) == b" the" and mine.token(the, first=True) == b"the"
    newline = mine.id("<0x0A>")
    assert newline is not None and mine.token(newline) == b"\n"
    with pytest.raises(InputError, match="token id 99999 is outside the vocabulary"):
        mine.spelling(99999)
    with pytest.raises(InputError, match="a rank file holds plain byte-level BPE"):
        mine.to_ranks()
