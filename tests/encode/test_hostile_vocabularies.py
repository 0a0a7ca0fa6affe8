"""Vocabulary files that are cut, mutated or made to hurt: one named error or a tokenizer that works, never a panic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.pipelines import sentencepiece_model, theirs
from tests.encode.test_tekken import _file
from tests.encode.vocabularies import made

TEXT = "Hello wörld, it's 12345  ▁<s> [CLS]\r\n\t中文 e\u0301 \x00"


def _real() -> list[bytes]:
    kinds = ("bert uncased", "unigram with bytes", "llama 2", "deepseek")
    return [
        *(theirs(kind).to_str().encode() for kind in kinds),
        *(sentencepiece_model(kind) for kind in ("unigram with bytes", "bpe with own symbols")),
        json.dumps(_file()).encode(),
        made("qwen2").to_json(),
    ]


def _try(content: bytes) -> None:
    try:
        tokenizer = Tokenizer.from_bytes(content, name="the file")
        ids = tokenizer.encode(TEXT, special="all", add_special_tokens=True)
        tokenizer.encode_with_offsets(TEXT)
        tokenizer.decode(ids)
    except InputError as error:
        assert str(error)


@settings(max_examples=80, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_files(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(_real())))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        change = data.draw(st.sampled_from(["byte", "cut", "drop", "repeat", "digits"]))
        if change == "byte":
            content[at] = data.draw(st.integers(0, 255))
        elif change == "cut":
            del content[at:]
        elif change == "drop":
            del content[at : at + data.draw(st.integers(1, 50))]
        elif change == "repeat":
            content[at:at] = content[at : at + data.draw(st.integers(1, 200))]
        else:
            content[at : at + 1] = str(data.draw(st.integers(-(2**40), 2**70))).encode()
        if not content:
            break
    _try(bytes(content))


@settings(max_examples=100)
@given(data=st.data())
def test_charsmaps_of_chance(data: st.DataObject) -> None:
    import base64

    size = data.draw(st.integers(0, 40))
    charsmap = (size * 4).to_bytes(4, "little") + data.draw(st.binary(min_size=size * 4, max_size=size * 4 + 20))
    file = {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()},
    }
    _try(json.dumps(file).encode())


@pytest.mark.parametrize(
    "model",
    [
        {"type": "BPE", "vocab": {"a": 0, "aa": 1}, "merges": [["a", "a"], ["aa", "a"]]},
        {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3}, "merges": [["a", "b"], ["b", "a"], ["a", "b"]]},
        {"type": "BPE", "vocab": {"a": 0, "x" * 10_000_000: 1}, "merges": []},
        {"type": "BPE", "vocab": {"a": 0, "b": (1 << 24) - 1}, "merges": []},
        {"type": "WordPiece", "vocab": {"[UNK]": 0, "##" + "x" * 1_000_000: 1, "": 2}},
        {"type": "WordPiece", "vocab": {}},
        {"type": "Unigram", "vocab": [["a", float("1e308")], ["", 0.0], ["b", -1e308]], "unk_id": 0},
        {"type": "Unigram", "vocab": [], "unk_id": None},
        {"type": "WordLevel", "vocab": {"\ud800": 0}},
        {"type": "BPE", "vocab": [], "merges": {}},
        {"type": 3, "vocab": {}},
        {"vocab": None},
    ],
)
def test_vocabularies_made_to_hurt(model: dict[str, object]) -> None:
    _try(json.dumps({"model": model}).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\n",
        b"\n\x05\n\x03abc",
        b"GGUF",
        b"HRVOCAB1",
        b"HRVOCAB1" + bytes(60),
        b"\xff" * 100,
    ],
)
def test_files_of_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError):
        Tokenizer.from_file(path)


def test_deep_files_do_not_break_the_stack() -> None:
    for content in (b'{"a":' * 100_000, b"[" * 100_000, b'{"model":' * 5_000 + b"1" + b"}" * 5_000):
        with pytest.raises(InputError):
            Tokenizer.from_bytes(content)
    deep = b'{"type":"Sequence","normalizers":[' * 400 + b"]}" * 400
    _try(b'{"model":{"type":"WordLevel","vocab":{"<unk>":0}},"normalizer":' + deep + b"}")


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfffb", "\x00", "\x00" * 100, "\ufffe\uffff", "a" * 100_000, "▁" * 50_000]
)
def test_hostile_text(text: str) -> None:
    for kind in ("bert uncased", "unigram with bytes", "llama 2", "deepseek"):
        tokenizer = Tokenizer.from_bytes(theirs(kind).to_str().encode())
        ids = tokenizer.encode(text)
        assert tokenizer.count(text) == len(ids)
        tokenizer.decode(ids)
