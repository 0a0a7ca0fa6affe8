"""Files in: what is read, what is refused and in which words. Files out: what other tools make of them."""

from __future__ import annotations

import base64
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from highrise.encode.formats_tiktoken import read_ranks
from tests.encode.vocabularies import SCHEMES, corpus, made, texts
from tests.reference import bpe


def _json(scheme: str = "qwen2") -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(made(scheme).to_json())
    return loaded


def _read(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_bytes(json.dumps(content).encode(), name="tokenizer.json")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_saved_and_read_again_is_the_same(scheme: str, tmp_path: Path) -> None:
    tokenizer = made(scheme)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.to_json() == tokenizer.to_json()
    assert again.special_tokens == tokenizer.special_tokens and again.vocab_size == tokenizer.vocab_size
    assert [again.encode(text) for text in corpus()] == [tokenizer.encode(text) for text in corpus()]


def test_merges_as_strings_are_read_too() -> None:
    content = _json()
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    assert _read(content).to_json() == made("qwen2").to_json()


def _change(path: str, value: object) -> dict[str, Any]:
    content = _json()
    *parents, last = path.split(".")
    place: Any = content
    for parent in parents:
        place = place[int(parent) if parent.isdigit() else parent]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.type", "Transducer", "it has a model of type 'Transducer'; known are BPE"),
        ("model.dropout", 0.1, r"it has model.dropout = 0.1; set it to null"),
        ("model.byte_fallback", True, "byte-level BPE with model.byte_fallback = True"),
        ("model.end_of_word_suffix", "</w>", "byte-level BPE with model.end_of_word_suffix = '</w>'"),
        ("pre_tokenizer.pretokenizers.0.pattern", {"Regex": r"\h+"}, r"whose '\\\\h' is read otherwise here"),
        ("truncation", {"max_length": 5}, "truncation; set it to null"),
        ("model.merges", [["a", "nope"]], 'merge 0 "a nope" names a token that the vocabulary does not have'),
        ("model.merges", ["a"], "merge 0 'a' is not two tokens with a blank between"),
        ("model.merges", [["a", "!"]], "makes no token of the vocabulary"),
        ("model.vocab", {"a b": 0}, 'token 0 "a b" has a character outside the byte-level alphabet'),
        ("model.vocab", 3, "is not a tokenizer.json"),
    ],
)
def test_what_is_not_supported_is_named(path: str, value: object, message: str) -> None:
    content = _change(path, value)
    if path == "model.vocab":
        content["model"]["merges"] = []
        content["added_tokens"] = []
    with pytest.raises(InputError, match=message):
        _read(content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("normalizer", {"type": "Lowercase"}),
        ("pre_tokenizer", None),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}),
        ("pre_tokenizer.pretokenizers.0.pattern", {"Regex": r"\w+"}),
        ("pre_tokenizer.pretokenizers.0.pattern", {"Regex": r"\p{N}{1,3}+|\p{L}+"}),
        ("added_tokens.0.lstrip", True),
    ],
)
def test_what_has_no_scanner_goes_step_by_step(path: str, value: object) -> None:
    content = _change(path, value)
    ours, theirs = _read(content), tokenizers.Tokenizer.from_str(json.dumps(content))
    for text in (*corpus(), "a <|endoftext|> b", "1234512345"):
        assert ours.encode(text, special="all") == theirs.encode(text).ids


@settings(max_examples=150)
@given(text=texts())
def test_nfc_as_tokenizers_does_it(text: str) -> None:
    # Python's tables are older than the crate's; where it leaves text alone and the crate does not, both still agree.
    content = _json()
    content["normalizer"] = {"type": "NFC"}
    ours, theirs = _read(content), tokenizers.Tokenizer.from_str(json.dumps(content))
    assert ours.encode(text, special="all") == theirs.encode(text).ids
    ids, offsets = ours.encode_with_offsets(text)
    assert len(ids) == len(offsets)


def test_nfc_changes_the_text_and_nothing_else() -> None:
    content = _json()
    content["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    tokenizer = _read(content)
    assert tokenizer.encode("e\u0301") == made("qwen2").encode("é")
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == unicodedata.normalize("NFC", "e\u0301")


def test_runs_of_blanks_as_added_tokens_are_found_in_plain_text() -> None:
    content = _json("gpt2")
    size = len(content["model"]["vocab"])
    blanks = {"id": size, "content": " " * 31, "special": False, "normalized": True}
    content["added_tokens"].append({**content["added_tokens"][0], **blanks})
    ours, theirs = _read(content), tokenizers.Tokenizer.from_str(json.dumps(content))
    text = "x" + " " * 40 + "y"
    assert size in ours.encode(text)
    assert ours.encode(text) == theirs.encode(text).ids
    assert ours.vocab_size == size + 1 and ours.token(size) == b" " * 31
    again = tokenizers.Tokenizer.from_str(ours.to_json().decode())
    assert again.encode(text).ids == ours.encode(text)


def test_ids_with_gaps_stay_where_they_are() -> None:
    content = _json("gpt2")
    size = len(content["model"]["vocab"])
    content["added_tokens"].append({**content["added_tokens"][0], "id": size + 5, "content": "<far>"})
    content["model"]["vocab"]["<far>"] = size + 5
    tokenizer = _read(content)
    assert tokenizer.encode("<far>", special="all") == [size + 5] and tokenizer.decode([size + 5]) == "<far>"
    with pytest.raises(InputError, match=f"token id {size + 2} is outside the vocabulary"):
        tokenizer.decode([size + 2])
    assert tokenizers.Tokenizer.from_str(tokenizer.to_json().decode()).encode("<far>").ids == [size + 5]


def _ranks(tokens: list[bytes]) -> bytes:
    return b"".join(base64.b64encode(token) + f" {index}\n".encode() for index, token in enumerate(tokens))


def test_rank_files(tmp_path: Path) -> None:
    tokens = [bytes([byte]) for byte in range(256)] + [b"ab", b"abc"]
    path = tmp_path / "own.tiktoken"
    path.write_bytes(_ranks(tokens))
    tokenizer = Tokenizer.from_ranks(path, scheme="cl100k", specials={"<|endoftext|>": 300})
    assert tokenizer.encode("abc abx") == [257, 32, 256, ord("x")]
    assert tokenizer.vocab_size == 301 and tokenizer.eos_ids == (300,)
    with pytest.raises(InputError, match=r"neither a tokenizer.json nor a published tiktoken rank file"):
        Tokenizer.from_file(path)
    path.write_bytes(_ranks(tokens[1:]))
    with pytest.raises(InputError, match="the vocabulary has no token for the byte 0x00"):
        Tokenizer.from_ranks(path, scheme="cl100k")
    path.write_bytes(b"YQ== 0\n!! 1\n")
    with pytest.raises(InputError, match="line 2: not a base64 token and a rank"):
        Tokenizer.from_ranks(path, scheme="cl100k")
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        Tokenizer.from_ranks(path, scheme="cl100k")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read the vocabulary .*nothing: No such file"):
        Tokenizer.from_file(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"has no readable tokenizer\.json"):
        Tokenizer.for_weights(tmp_path)
    (tmp_path / "cut.json").write_bytes(made("gpt2").to_json()[:1000])
    with pytest.raises(InputError, match=r"cut.json is not a tokenizer.json"):
        Tokenizer.from_file(tmp_path / "cut.json")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03")
    with pytest.raises(InputError, match="is not a whole GGUF file"):
        Tokenizer.from_file(tmp_path / "cut.gguf")


def test_a_folder_says_what_ends_a_turn(tmp_path: Path) -> None:
    made("qwen2").save(tmp_path / "tokenizer.json")
    assert Tokenizer.for_weights(tmp_path).eos_ids == (2, 0)
    config = {"eos_token": {"content": "<|endoftext|>"}, "bos_token": "<|im_start|>", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.for_weights(tmp_path)
    assert (tokenizer.eos_ids, tokenizer.bos_id, tokenizer.add_bos) == ((0, 2), 1, True)


def test_the_byte_alphabet_is_the_reference_order() -> None:
    tokenizer = made("gpt2")
    first = len(tokenizer.special_tokens)
    assert [tokenizer.token(first + index) for index in range(256)] == [bytes([byte]) for byte in bpe.byte_order()]


@pytest.mark.parametrize("index", [-1, 4_000_000_000])
def test_ids_that_no_vocabulary_has_are_refused(index: int) -> None:
    content = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0, "b": index}, "merges": []}}).encode()
    with pytest.raises(InputError, match="token ids outside 0 to"):
        Tokenizer.from_bytes(content)
    with pytest.raises(InputError, match="ranks outside 0 to"):
        read_ranks(f"YQ== 0\nYg== {index}\n".encode(), name="ranks", scheme="cl100k")
