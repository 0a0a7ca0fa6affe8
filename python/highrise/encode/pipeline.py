"""Floor 3, pipeline: tokenizers of many steps, as `tokenizers` and SentencePiece have them, ready for Rust.

A `PipelineFile` is what every such file comes down to: tokens by id, a model, and the steps as tokenizer.json spells
them (plus SentencePiece's own, type "SentencePiece"). Knows nothing of how a file is laid out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.encode import steps

__all__ = ["MODEL_OPTIONS", "Added", "PipelineFile", "build"]


class Added(msgspec.Struct, frozen=True):
    """An added token as tokenizer.json has it."""

    id: int
    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


class PipelineFile(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. `model` holds the options of the model, without its vocabulary."""

    tokens: list[str]
    model: dict[str, Any]
    merges: list[tuple[str, str]] = []
    scores: list[float] = []
    kinds: bytes = b""
    """SentencePiece's kind of each token; empty for other files."""
    added: list[Added] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    eos_id: int | None = None
    bos_id: int | None = None
    add_bos: bool = False
    name: str = "the tokenizer"


MODEL_OPTIONS: dict[str, dict[str, Any]] = {
    "BPE": {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    },
    "WordPiece": {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    "Unigram": {"unk_id": None, "byte_fallback": False},
    "WordLevel": {"unk_token": "<unk>"},
    "SentencePieceBPE": {"unk_id": None, "byte_fallback": False},
    "SentencePieceUnigram": {"unk_id": None, "byte_fallback": False},
}
"""The options of each type of model, with their defaults."""


def build(file: PipelineFile) -> Any:
    """The native tokenizer; `InputError` names what the file asks for and is not done."""
    name = file.name
    byte_level = steps.ends_in_byte_level(file.pre_tokenizer, name=name)
    normalizers = steps.normalizers(file.normalizer, name=name)
    try:
        return rust.PipelineTokenizer(
            tokens=file.tokens,
            kinds=file.kinds,
            model=_model(file, byte_level),
            normalizers=normalizers,
            pre_tokenizers=steps.pre_tokenizers(file.pre_tokenizer, name=name),
            decoders=steps.decoders(file.decoder, name=name),
            added=[
                (one.content, one.id, one.special, one.single_word, one.lstrip, one.rstrip, one.normalized)
                for one in file.added
            ],
        )
    except InputError as error:
        if str(error).startswith(name):
            raise
        raise InputError(f"{name}: {error}") from error


def _model(file: PipelineFile, byte_level: bool) -> dict[str, Any]:
    options = dict(file.model)
    kind = options.pop("type", "BPE")
    defaults = MODEL_OPTIONS.get(kind)
    if defaults is None:
        raise InputError(
            f"{file.name} is not supported: it has a model of type {kind!r}; known are {', '.join(MODEL_OPTIONS)}"
        )
    for key in options:
        if key not in defaults and options[key] not in (None, False, ""):
            raise InputError(f"{file.name} is not supported: it has model.{key} = {str(options[key])[:60]!r}")
    values: dict[str, Any] = {**defaults, **{key: value for key, value in options.items() if key in defaults}}
    if values.get("dropout"):
        raise InputError(f"{file.name} is not supported: it has model.dropout = {values['dropout']!r}; set it to null")
    values["unknown"] = _unknown(file, values)
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if key in values:
            values[key] = values[key] or ""
    if kind == "BPE" and byte_level:
        for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
            if values[key]:
                raise InputError(
                    f"{file.name} is not supported: it has byte-level BPE with model.{key} = {values[key]!r}"
                )
        merges = [f"{left} {right}" for left, right in file.merges]
        return {"type": "ByteLevelBPE", "merges": merges, "ignore_merges": values["ignore_merges"]}
    if byte_level:
        raise InputError(f"{file.name} is not supported: it has the pre_tokenizer ByteLevel with a {kind} model")
    return {"type": kind, **values, "merges": file.merges, "scores": file.scores}


def _unknown(file: PipelineFile, values: Mapping[str, Any]) -> int | None:
    if "unk_id" in values:
        unknown = values["unk_id"]
        if unknown is not None and not (isinstance(unknown, int) and 0 <= unknown < len(file.tokens)):
            raise InputError(f"{file.name} is damaged: model.unk_id = {unknown!r} is none of {len(file.tokens)} tokens")
        return unknown
    token = values.get("unk_token")
    if token is None:
        return None
    try:
        return file.tokens.index(token)
    except ValueError:
        return next((one.id for one in file.added if one.content == token), None)
