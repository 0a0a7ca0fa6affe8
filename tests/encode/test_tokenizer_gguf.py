"""Vocabularies in GGUF files: read as the writer of the ecosystem writes them, refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import pytest

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.vocabularies import corpus, made

_PRE = {"gpt2": "gpt-2", "smollm": "smollm", "llama3": "llama-bpe", "qwen2": "qwen2"}


def write(path: Path, scheme: str, *, model: str = "gpt2", pre: str | None = None, merges: bool = True) -> Path:
    """The test vocabulary of `scheme` as the metadata of a GGUF file without tensors."""
    file = json.loads(made(scheme).to_json())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(_PRE[scheme] if pre is None else pre)
    tokens = sorted(file["model"]["vocab"], key=file["model"]["vocab"].get)
    special = {token["content"] for token in file["added_tokens"]}
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    if merges:
        writer.add_token_merges([" ".join(merge) for merge in file["model"]["merges"]])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_chat_template("{{ messages[0].content }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("scheme", _PRE)
def test_ids_are_those_of_the_same_tokenizer_json(scheme: str, tmp_path: Path) -> None:
    tokenizer, expected = Tokenizer.for_weights(write(tmp_path / "x.gguf", scheme)), made(scheme)
    assert tokenizer.scheme == scheme
    assert (tokenizer.eos_ids, tokenizer.bos_id, tokenizer.add_bos) == ((0, 2), 1, scheme == "llama3")
    assert tokenizer.special_tokens == expected.special_tokens
    for text in corpus():
        assert tokenizer.encode(text) == expected.encode(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "llama"}, 'has a vocabulary of kind "llama"; only byte-level BPE'),
        ({"pre": "viking"}, 'has the pre-tokeniser "viking", which is not supported; supported are'),
        ({"merges": False}, r"has no tokenizer.ggml.tokens or no tokenizer.ggml.merges"),
    ],
)
def test_other_vocabularies_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", "gpt2", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        Tokenizer.from_file(path)
