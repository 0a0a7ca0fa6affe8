"""Files that say they are JSON and are not: whoever reads one says so in one sentence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from highrise.agent.keys import KeyFile
from highrise.align.records import read_pair_lines
from highrise.core.errors import HighriseError
from highrise.core.json_text import decode_json
from highrise.core.manifest import read_manifest
from highrise.core.safetensors import SafeTensors
from highrise.core.weights import open_weights
from highrise.encode.minilm import MiniLm
from highrise.serve.adapter import read_adapter
from highrise.train.weights_io import config_json
from tests.align.test_lora import SHAPE

_NO_UTF8, _TOO_DEEP = b'{"chosen": "\xff", "r": 1}', b'{"extra": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


@pytest.mark.parametrize("text", [_NO_UTF8, _TOO_DEEP, b"", b"{", b"\xff", b'{"extra": 1} 2'])
def test_one_kind_of_error(text: bytes) -> None:
    class Wanted(msgspec.Struct):
        chosen: str = ""

    with pytest.raises(msgspec.MsgspecError):
        decode_json(text, Wanted)
    assert decode_json(b'{"chosen": "a"}', Wanted).chosen == "a"


def _shards(folder: Path) -> object:
    config = msgspec.json.encode(config_json(SHAPE, dtype="float32"))
    (folder / "config.json").write_bytes(config)
    return open_weights(folder)


def _safetensors(folder: Path) -> object:
    header = (folder / "config.json").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return SafeTensors(folder / "model.safetensors")


@pytest.mark.parametrize("text", [_NO_UTF8, _TOO_DEEP], ids=["no UTF-8", "too deep"])
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("manifest.json", read_manifest),
        ("config.json", open_weights),
        ("config.json", _safetensors),
        ("config.json", MiniLm.load),
        ("adapter_config.json", lambda folder: read_adapter(folder, SHAPE)),
        ("model.safetensors.index.json", _shards),
        ("pairs.jsonl", lambda folder: read_pair_lines(folder / "pairs.jsonl")),
        ("keys.json", lambda folder: KeyFile(folder / "keys.json").keys()),
    ],
)
def test_each_reader_has_a_sentence(name: str, read: Callable[[Path], object], text: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(HighriseError) as caught:
        read(tmp_path)
    assert name in str(caught.value) or "model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
