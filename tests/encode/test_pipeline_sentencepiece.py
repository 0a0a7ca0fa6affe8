"""SentencePiece models: ids and text are SentencePiece's; what is written loads in `tokenizers` with the same ids."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.pipelines import SENTENCEPIECE, as_sentencepiece, ours_sentencepiece, sentencepiece_model
from tests.encode.test_pipeline_huggingface import _every_character
from tests.encode.vocabularies import corpus, texts

KINDS = tuple(SENTENCEPIECE)
MARKS = ["<s>", "</s>", "<unk>", "<0x41>", "▁", "▁▁", "<sep>", "naïve", "  ", "\x00", "\u00ad"]


def mixed() -> st.SearchStrategy[str]:
    return st.lists(st.one_of(st.sampled_from(MARKS), texts(6)), max_size=8).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100)
@given(text=mixed())
def test_ids_and_text_are_those_of_sentencepiece(kind: str, text: str) -> None:
    ids = as_sentencepiece(kind).encode(text)
    assert ours_sentencepiece(kind).encode(text) == ids
    assert ours_sentencepiece(kind).decode(ids) == as_sentencepiece(kind).decode(ids)
    assert len(ours_sentencepiece(kind).encode_with_offsets(text)[1]) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_real_text(kind: str) -> None:
    for text in (*corpus(), "".join(corpus()), "a" * 3000, " " * 3000 + "x", "\n" * 1000):
        assert ours_sentencepiece(kind).encode(text) == as_sentencepiece(kind).encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_some_of_every_range_of_characters(kind: str) -> None:
    for text in _every_character(61):
        assert ours_sentencepiece(kind).encode(text) == as_sentencepiece(kind).encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_character_alone_and_in_a_word(kind: str) -> None:
    for text in _every_character(1):
        assert ours_sentencepiece(kind).encode(text) == as_sentencepiece(kind).encode(text)


@pytest.mark.parametrize("kind", ["bpe", "bpe with bytes"])
@settings(max_examples=60)
@given(text=texts())
def test_what_is_written_has_the_same_ids_in_tokenizers(kind: str, text: str) -> None:
    # A charsmap sees "\r\n" as one character in tokenizers, and user-defined pieces are normalised there.
    text = text.replace("\r\n", "\n")
    written = tokenizers.Tokenizer.from_str(ours_sentencepiece(kind).to_json().decode())
    written.encode_special_tokens = True
    assert written.encode(text, add_special_tokens=False).ids == ours_sentencepiece(kind).encode(text)


def test_what_is_written_of_a_unigram_model(tmp_path: Path) -> None:
    mine = ours_sentencepiece("unigram")
    path = tmp_path / "tokenizer.json"
    mine.save(path)
    written, again = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.from_file(path)
    scores = [score for _, score in json.loads(path.read_text())["model"]["vocab"]]
    lines = "".join(corpus()).replace("\r\n", "\n").split("\n")
    num_ties = 0
    for line in lines:
        theirs, ours = written.encode(line, add_special_tokens=False).ids, mine.encode(line, special="all")
        assert again.encode(line, special="all") == theirs
        if ours != theirs:  # sentencepiece adds scores up in 32 bits, tokenizers in 64
            num_ties += 1
            assert sum(scores[id] for id in ours) == pytest.approx(sum(scores[id] for id in theirs), abs=1e-4)
    assert num_ties <= len(lines) // 500
    with pytest.raises(InputError, match="its blanks stand behind words"):
        ours_sentencepiece("bpe with blanks behind").to_json()


def test_special_tokens_names_and_pickles(tmp_path: Path) -> None:
    mine = ours_sentencepiece("bpe with bytes")
    assert mine.special_tokens == {"<s>": 1, "</s>": 2}
    assert (mine.bos_id, mine.eos_ids, mine.scheme) == (1, (2,), "SentencePieceBPE")
    assert mine.encode("a<s>", special="all")[-1] == 1 and 1 not in mine.encode("a<s>")
    assert pickle.loads(pickle.dumps(mine)) == mine
    path = tmp_path / "spiece.model"
    path.write_bytes(sentencepiece_model("bpe with bytes"))
    assert Tokenizer.from_file(path) == mine


@pytest.mark.parametrize("cut", [10, 1000, -1, -100])
def test_a_cut_model_is_one_error(cut: int) -> None:
    with pytest.raises(InputError, match=r"is not a whole SentencePiece model|is damaged|neither a tokenizer\.json"):
        Tokenizer.from_bytes(sentencepiece_model("bpe")[:cut], name="cut.model")
