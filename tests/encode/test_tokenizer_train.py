"""Merges are learned as the reference and as Hugging Face's trainer learn them."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers

from highrise.core.config import convert
from highrise.core.errors import ConfigError, InputError
from highrise.encode import Tokenizer
from highrise.encode.config import TokenizerConfig
from highrise.encode.train import batches, flat_batches
from tests.encode.vocabularies import SCHEMES, corpus
from tests.reference import bpe


def _merges(tokenizer: Tokenizer) -> list[tuple[bytes, bytes]]:
    alphabet = {chr(byte) if index < 188 else chr(68 + index): byte for index, byte in enumerate(bpe.byte_order())}
    merges = json.loads(tokenizer.to_json())["model"]["merges"]
    return [(bytes(alphabet[c] for c in left), bytes(alphabet[c] for c in right)) for left, right in merges]


@settings(max_examples=60)
@given(
    texts=st.lists(st.text(st.sampled_from("aab bc\n1é"), max_size=60), min_size=1, max_size=6).filter(any),
    scheme=st.sampled_from(SCHEMES),
    min_count=st.integers(1, 3),
)
def test_merges_are_those_of_the_reference(texts: list[str], scheme: str, min_count: int) -> None:
    ours = Tokenizer.train(texts, vocabulary=290, pattern=scheme, min_count=min_count, threads=2)
    assert _merges(ours) == bpe.train(texts, scheme, vocabulary=290, min_count=min_count)


@pytest.mark.parametrize(("vocabulary", "min_count"), [(1500, 0), (6000, 2)])
def test_merges_are_those_of_tokenizers(vocabulary: int, min_count: int) -> None:
    special = ["<|endoftext|>", "<|im_end|>"]
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=min_count,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    theirs.train_from_iterator(corpus(), trainer)
    expected = json.loads(theirs.to_str())["model"]
    ours = Tokenizer.train(corpus(), vocabulary=vocabulary, pattern="gpt2", special=special, min_count=min_count)
    found = json.loads(ours.to_json())["model"]
    assert found["merges"] == expected["merges"]
    assert found["vocab"] == expected["vocab"]


def test_threads_and_the_order_of_texts_change_nothing() -> None:
    texts = list(corpus())
    first = Tokenizer.train(texts, vocabulary=1000, threads=1).to_json()
    assert Tokenizer.train(reversed(texts), vocabulary=1000, threads=4).to_json() == first
    assert Tokenizer.train(iter(["".join(texts[:0]), *texts]), vocabulary=1000, threads=2).to_json() == first


@settings(max_examples=30)
@given(
    texts=st.lists(st.text(st.sampled_from("ab c\n1é中"), max_size=40), min_size=1, max_size=60).filter(any),
    size=st.integers(1, 200),
)
def test_texts_of_every_kind_are_the_same(texts: list[str], size: int) -> None:
    expected = Tokenizer.train(texts, vocabulary=300)
    content = [text.encode() for text in texts]
    flat = np.frombuffer(b"".join(content), np.uint8), np.cumsum([0, *map(len, content)])
    for same in (tuple(texts), iter(texts), content, pa.array(texts, pa.string()), np.array(texts, dtype=object), flat):
        assert Tokenizer.train(same, vocabulary=300) == expected
    assert [text for batch in batches(texts, size) for text in batch] == texts
    parts = [part for _, offsets in flat_batches(flat, size) for part in itertools.pairwise(offsets)]
    assert parts == list(itertools.pairwise(flat[1]))


def test_lone_surrogates_are_replaced() -> None:
    broken = Tokenizer.train(["a\ud800a a\ud800a", b"a a"], vocabulary=300)
    assert broken == Tokenizer.train(["a\ufffda a\ufffda", "a a"], vocabulary=300)


def test_a_short_text_gives_a_smaller_vocabulary() -> None:
    tokenizer = Tokenizer.train(["abab"], vocabulary=5000, special=("<s>",), min_count=1)
    assert tokenizer.vocab_size == 1 + 256 + 2
    assert tokenizer.encode("abab") == [tokenizer.vocab_size - 1]


def test_bad_requests_are_one_sentence() -> None:
    with pytest.raises(
        InputError, match="a vocabulary of 256 is too small: the 256 bytes and the special tokens need 257"
    ):
        Tokenizer.train(["x"], vocabulary=256, special=("<s>",))
    with pytest.raises(InputError, match="there is no text to train a vocabulary on"):
        Tokenizer.train([], vocabulary=1000)
    with pytest.raises(InputError, match='the split pattern "words" is not known'):
        Tokenizer.train(["x"], vocabulary=1000, pattern="words")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": 100}, "vocabulary = 100 is too small: 256 bytes and 11 special tokens need 267"),
        ({"pattern": "words"}, 'pattern = "words" is not known'),
        ({"special": ["<s>", "<s>"]}, "has an empty token or one twice"),
        ({"threads": 0}, "threads = 0"),
        ({"vocabulry": 5}, "unknown field `vocabulry`"),
    ],
)
def test_bad_configurations_are_one_sentence(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert(change, TokenizerConfig, where="assistant.toml")
