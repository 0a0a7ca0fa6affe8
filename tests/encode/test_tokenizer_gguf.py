"""Vocabularies in GGUF files: read as the writer of the ecosystem writes them, refused in words."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import gguf
import pytest

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from tests.encode.pipelines import as_sentencepiece, ours_sentencepiece
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
        ({"model": "rwkv"}, 'has a vocabulary of kind "rwkv", which is not supported; supported are gpt2, llama, t5'),
        ({"model": "llama"}, r"needs as many tokenizer\.ggml\.scores and token_type as tokens"),
        ({"pre": "viking"}, 'has the pre-tokeniser "viking", which is not supported; supported are'),
        ({"merges": False}, r"has no tokenizer.ggml.tokens or no tokenizer.ggml.merges"),
    ],
)
def test_other_vocabularies_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", "gpt2", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(("model", "kind"), [("llama", "bpe"), ("llama", "bpe with bytes"), ("t5", "unigram")])
def test_sentencepiece_vocabularies_have_the_ids_of_sentencepiece(model: str, kind: str, tmp_path: Path) -> None:
    theirs = as_sentencepiece(kind)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tokenizer_model(model)
    count = theirs.get_piece_size()
    writer.add_token_list([theirs.id_to_piece(index) for index in range(count)])
    writer.add_token_scores([theirs.get_score(index) for index in range(count)])

    def kind_of(index: int) -> int:
        asked = {2: theirs.is_unknown, 3: theirs.is_control, 5: theirs.is_unused, 6: theirs.is_byte}
        return next((number for number, ask in asked.items() if ask(index)), 1)

    writer.add_token_types([kind_of(index) for index in range(count)])
    rules = ours_sentencepiece(kind)._to_file().normalizer  # type: ignore[union-attr]
    if model == "t5":
        assert rules is not None
        writer.add_precompiled_charsmap(base64.b64decode(rules["precompiled_charsmap"]))
        writer.add_remove_extra_whitespaces(True)
    writer.add_add_space_prefix(True)
    writer.add_bos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = Tokenizer.from_file(tmp_path / "x.gguf")
    assert (tokenizer.bos_id, tokenizer.add_bos) == (1, model == "llama")
    for text in corpus():
        # A GGUF file of kind llama does not say whether blanks were taken together, so here there are none to take.
        text = text if kind != "bpe with bytes" else " ".join(text.split())
        assert tokenizer.encode(text) == theirs.encode(text)
