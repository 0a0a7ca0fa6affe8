"""tekken JSON: ids are those of tiktoken with the file's pattern, behind the special tokens."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.vocabularies import corpus, made, texts

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FIRST = 30


def _file() -> dict[str, Any]:
    tokenizer = made("o200k")
    start = len(tokenizer.special_tokens)
    tokens = [tokenizer.token(index) for index in range(start, tokenizer.vocab_size)]
    vocabulary = [
        {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(tokens)
    ]
    config = {
        "pattern": PATTERN,
        "num_vocab_tokens": len(tokens),
        "default_vocab_size": len(tokens) + FIRST - 20,
        "default_num_special_tokens": FIRST,
        "version": "v3",
    }
    return {"config": config, "vocab": vocabulary}


@functools.cache
def _ours() -> Tokenizer:
    return Tokenizer.from_bytes(json.dumps(_file()).encode(), name="tekken.json")


@functools.cache
def _theirs() -> tiktoken.Encoding:
    file = _file()
    size = file["config"]["default_vocab_size"] - FIRST
    ranks = {base64.b64decode(token["token_bytes"]): token["rank"] for token in file["vocab"][:size]}
    return tiktoken.Encoding("tekken", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


@settings(max_examples=150)
@given(text=texts())
def test_ids_are_those_of_tiktoken_behind_the_special_tokens(text: str) -> None:
    expected = [FIRST + index for index in _theirs().encode_ordinary(text)]
    assert _ours().encode(text) == expected
    assert _ours().decode(expected) == text


def test_real_text_and_written_files(tmp_path: Path) -> None:
    _ours().save(tmp_path / "tokenizer.json")
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in corpus():
        expected = [FIRST + index for index in _theirs().encode_ordinary(text)]
        assert _ours().encode(text) == expected == written.encode(text, add_special_tokens=False).ids


def test_special_tokens() -> None:
    special = _ours().special_tokens
    assert (special["<s>"], special["[INST]"], special["<SPECIAL_29>"], len(special)) == (1, 3, 29, FIRST)
    assert (_ours().bos_id, _ours().eos_ids) == (1, (2,))
    assert _ours().encode("[INST]a", special={"[INST]"})[0] == 3 and 3 not in _ours().encode("[INST]a")
    file = {**_file(), "special_tokens": [{"rank": 0, "token_str": "<end>", "is_control": True}]}
    assert Tokenizer.from_bytes(json.dumps(file).encode()).special_tokens["<end>"] == 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("config", "default_vocab_size"), 10**9, "1000000000 ids of which 30 are special do not go with"),
        (("config", "default_num_special_tokens"), -1, "do not go with"),
        (("vocab", 3), {"rank": 2, "token_bytes": "YQ=="}, "token 3 has the rank 2"),
        (("vocab", 3), {"rank": -2, "token_bytes": "YQ=="}, "token 3 has the rank -2"),
        (("vocab", 3), {"rank": 3, "token_bytes": "!"}, "token 3 is not base64"),
        (("vocab", 3), {"rank": 3, "token_bytes": "YWI="}, "has no token for the byte"),
        (("config", "pattern"), "(", "the pattern cannot be used"),
        (("config", "pattern"), 3, "is not a tekken JSON"),
    ],
)
def test_damaged_files_are_one_error(path: tuple[Any, Any], value: object, message: str) -> None:
    file = _file()
    file[path[0]][path[1]] = value
    with pytest.raises(InputError, match=message):
        Tokenizer.from_bytes(json.dumps(file).encode(), name="tekken.json")
