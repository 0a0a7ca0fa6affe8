"""The ids are those of tiktoken, of Hugging Face's tokenizers, and of the obvious version."""

from __future__ import annotations

import functools
import json
from importlib import util
from pathlib import Path

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode import Tokenizer
from tests.encode.vocabularies import SCHEMES, as_tiktoken, as_tokenizers, corpus, made, texts
from tests.reference import bpe

GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer_ids.json"
TIKTOKEN_SCHEMES = [scheme for scheme in SCHEMES if scheme != "smollm"]
LONG = [
    "a" * 5000,
    " " * 5000 + "x",
    "ab" * 3000,
    "\n" * 3000,
    "".join(chr(97 + i * i % 26) for i in range(4000)),
    "中" * 2000,
]


@pytest.mark.parametrize("scheme", TIKTOKEN_SCHEMES)
@settings(max_examples=100)
@given(text=texts())
def test_ids_are_tiktokens(scheme: str, text: str) -> None:
    assert made(scheme).encode(text) == as_tiktoken(scheme).encode_ordinary(text)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=100)
@given(text=texts())
def test_ids_are_those_of_tokenizers(scheme: str, text: str) -> None:
    assert made(scheme).encode(text) == as_tokenizers(scheme).encode(text).ids


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ids_of_real_and_of_hostile_text(scheme: str) -> None:
    for text in (*corpus(), *LONG):
        assert made(scheme).encode(text) == as_tokenizers(scheme).encode(text).ids


@functools.cache
def _tables(scheme: str) -> tuple[dict[tuple[bytes, bytes], int], dict[bytes, int]]:
    tokenizer = made(scheme)
    to_byte = {character: byte for byte, character in _alphabet().items()}
    file = json.loads(tokenizer.to_json())
    plain = [tuple(bytes(to_byte[c] for c in side) for side in merge) for merge in file["model"]["merges"]]
    ids = {tokenizer.token(index): index for index in range(len(tokenizer.special_tokens), tokenizer.vocab_size)}
    return {(left, right): rank for rank, (left, right) in enumerate(plain)}, ids


def _alphabet() -> dict[int, str]:
    order = bpe.byte_order()
    return {byte: chr(byte) if index < 188 else chr(256 + index - 188) for index, byte in enumerate(order)}


@settings(max_examples=100)
@given(text=texts(max_size=60))
def test_ids_are_those_of_the_reference(text: str) -> None:
    assert made("llama3").encode(text) == bpe.encode(text, "llama3", *_tables("llama3"))


def test_golden_ids() -> None:
    golden = json.loads(GOLDEN.read_text())
    tokenizer = Tokenizer.train([golden["corpus"]], vocabulary=golden["vocabulary"], pattern="qwen2", min_count=1)
    assert tokenizer.encode(golden["text"]) == golden["ids"]
    assert tokenizer.decode(golden["ids"]) == golden["text"]


@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "smollm2-135m"])
def test_vocabulary_of_real_weights(name: str) -> None:
    try:
        path = locate(name)
    except HighriseError as error:
        pytest.skip(f"the weights are not on this machine: {error}")
    tokenizer = Tokenizer.for_weights(path)
    theirs = tokenizers.Tokenizer.from_str(tokenizer.to_json().decode())
    for text in (*corpus(), *LONG, "<|im_start|>user\nhi<|im_end|>"):
        assert tokenizer.encode(text, special="all") == theirs.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text)) == text


PUBLISHED = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
    "p50k_base": "ec7223a39ce59f226a68acc30dc1af2788490e15",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rank_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec("litellm")
    if found is None or found.origin is None:
        pytest.skip("the rank files lie in the litellm wheel, which is not installed")
    folder = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    tokenizer, theirs = Tokenizer.from_file(folder / PUBLISHED[name]), tiktoken.get_encoding(name)
    assert tokenizer.special_tokens.items() <= theirs._special_tokens.items()
    for text in (*corpus(), *LONG):
        assert tokenizer.encode(text) == theirs.encode_ordinary(text)
    saved = tokenizers.Tokenizer.from_str(tokenizer.to_json().decode())
    again = Tokenizer.from_bytes(tokenizer.to_json())
    for text in corpus()[:10]:
        assert saved.encode(text).ids == again.encode(text) == theirs.encode_ordinary(text)
