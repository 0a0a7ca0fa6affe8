"""What a caller may ask of a tokenizer: special tokens, counts, offsets, streams, threads, pickles, bad input."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import EncodeError, InputError
from highrise.encode import Tokenizer
from tests.encode.vocabularies import SCHEMES, SPECIALS, as_tiktoken, as_tokenizers, corpus, made, texts


@settings(max_examples=200)
@given(text=texts())
def test_special_tokens_are_found_as_tokenizers_finds_them(text: str) -> None:
    theirs = as_tokenizers("llama3")
    theirs.encode_special_tokens = False
    try:
        expected = theirs.encode(text).ids
    finally:
        theirs.encode_special_tokens = True
    assert made("llama3").encode(text, special="all") == expected


def test_special_tokens_are_plain_text_unless_allowed() -> None:
    tokenizer = made("qwen2")
    text = "<|im_start|>hi<|im_end|>x"
    start, longest = tokenizer.special_tokens["<|im_start|>"], tokenizer.special_tokens["<|im_end|>x"]
    assert not set(tokenizer.encode(text)) & set(tokenizer.special_tokens.values())
    assert tokenizer.encode(text, special="all")[0] == start
    assert tokenizer.encode(text, special="all")[-1] == longest
    only_start = tokenizer.encode(text, special={"<|im_start|>"})
    assert only_start[0] == start and only_start[1:] == tokenizer.encode("hi<|im_end|>x")
    for ids in (only_start, tokenizer.encode(text, special="all"), tokenizer.encode(text)):
        assert tokenizer.decode(ids) == text
    with pytest.raises(InputError, match="'<nope>' is no special token of this vocabulary"):
        tokenizer.encode(text, special={"<nope>"})
    with pytest.raises(InputError, match='special = "some": write "none", "all" or a set'):
        tokenizer.encode(text, special="some")


@settings(max_examples=100)
@given(text=texts(), limit=st.integers(0, 50))
def test_count_and_arrays_agree_with_encode(text: str, limit: int) -> None:
    tokenizer = made("o200k")
    ids = tokenizer.encode(text)
    assert tokenizer.count(text) == len(ids)
    assert tokenizer.count(text, limit=limit) == min(len(ids), limit + 1)
    array = tokenizer.encode_array(text)
    assert array.dtype == np.uint32 and array.tolist() == ids
    assert tokenizer.decode(array) == tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()


@settings(max_examples=100)
@given(text=texts())
def test_offsets_are_the_bytes_of_each_token(text: str) -> None:
    tokenizer = made("gpt2")
    ids, offsets = tokenizer.encode_with_offsets(text, special="all")
    content = text.encode()
    assert ids == tokenizer.encode(text, special="all")
    assert [content[start:end] for start, end in offsets] == [tokenizer.token(token) for token in ids]


@settings(max_examples=100)
@given(text=texts())
def test_stream_gives_the_text_and_never_half_a_character(text: str) -> None:
    tokenizer = made("cl100k")
    stream = tokenizer.decode_stream()
    parts = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(parts) + stream.finish() == text
    assert not any("\ufffd" in part for part in parts) or "\ufffd" in text


def test_stream_of_broken_bytes() -> None:
    tokenizer = made("gpt2")
    ids = [tokenizer.id(bytes([byte])) for byte in b"\xffa\xe4\xb8b\xe4\xb8"]
    stream = tokenizer.decode_stream()
    found = [stream.push(token) for token in ids if token is not None]
    assert found == ["\ufffd", "a", "", "", "\ufffdb", "", ""]
    assert stream.finish() == "\ufffd"
    assert tokenizer.decode([token for token in ids if token is not None]) == "\ufffda\ufffdb\ufffd"


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_batch_is_each_text_by_itself(threads: int) -> None:
    tokenizer = made("llama3")
    batch = [*corpus(), "", "x", *(text[:50] for text in corpus())]
    ids, offsets = tokenizer.encode_batch(batch, threads=threads)
    assert ids.dtype == np.uint32 and offsets.dtype == np.int64 and len(offsets) == len(batch) + 1
    for index, text in enumerate(batch):
        assert ids[offsets[index] : offsets[index + 1]].tolist() == tokenizer.encode(text)
    empty_ids, empty_offsets = tokenizer.encode_batch([])
    assert len(empty_ids) == 0 and empty_offsets.tolist() == [0]


def test_one_tokenizer_serves_many_threads() -> None:
    tokenizer = made("qwen2")
    expected = [tokenizer.encode(text) for text in corpus()]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(tokenizer.encode, corpus())) == expected


def _encode_in_child(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text)


def test_a_forked_and_a_fresh_process_encode_the_same(tmp_path: Path) -> None:
    tokenizer = made("qwen2")
    expected = tokenizer.encode("def f(x): return x")
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_encode_in_child, (tokenizer, "def f(x): return x")) == expected


def test_pickles_are_small_and_notice_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    made("qwen2").save(path)
    tokenizer = Tokenizer.from_file(path)
    content = pickle.dumps(tokenizer)
    assert len(content) < 400
    assert pickle.loads(content) is tokenizer
    del tokenizer
    made("gpt2").save(path)
    with pytest.raises(EncodeError, match="has changed since the tokenizer was pickled"):
        pickle.loads(content)
    assert len(pickle.dumps(made("qwen2"))) < 40_000


def test_lone_surrogates_become_the_replacement_character() -> None:
    tokenizer, theirs = made("cl100k"), as_tiktoken("cl100k")
    for text in ("ab\ud800cd", "\udfff", "\ud83d\ude00"):
        assert tokenizer.encode(text) == theirs.encode_ordinary(text)
        assert tokenizer.count(text) == len(tokenizer.encode(text))
        assert tokenizer.encode_batch([text])[0].tolist() == tokenizer.encode(text)
        assert tokenizer.encode_with_offsets(text)[0] == tokenizer.encode(text)


def test_bad_ids_are_one_sentence() -> None:
    tokenizer = made("gpt2")
    with pytest.raises(InputError, match=r"token id 99999 is outside the vocabulary of 2\d\d\d tokens|of 2000 tokens"):
        tokenizer.decode([1, 99999])
    with pytest.raises(InputError, match="-1 is no token id"):
        tokenizer.decode([-1])
    with pytest.raises(InputError, match="-1 is no token id"):
        tokenizer.token(-1)
    with pytest.raises(InputError, match="threads = 0"):
        tokenizer.encode_batch(["x"], threads=0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_token_has_its_bytes_and_its_id(scheme: str) -> None:
    tokenizer = made(scheme)
    assert tokenizer.scheme == scheme
    assert tokenizer.special_tokens == {text: index for index, text in enumerate(SPECIALS)}
    for index in range(tokenizer.vocab_size):
        assert tokenizer.id(tokenizer.token(index)) == index
    assert tokenizer.id("no such token") is None
    assert tokenizer.eos_ids == (tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>"))


def test_ids_in_lists_are_plain_integers_that_outlive_their_tokenizer() -> None:
    tokenizer = Tokenizer.train(["some words, some more words"] * 3, vocabulary=300, pattern="gpt2")
    text = "some words and others " * 50
    kept = [tokenizer.encode(text) for _ in range(100)]
    expected = tokenizer.encode_array(text).tolist()
    del tokenizer
    gc.collect()
    assert all(type(index) is int for index in kept[0])
    assert kept == [expected] * 100
    assert pickle.loads(pickle.dumps(kept[0])) == expected
    del kept
    gc.collect()
    assert {index: index for index in expected}[expected[0]] == expected[0]
