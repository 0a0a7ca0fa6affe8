"""Floor 3, formats_huggingface: tokenizer.json in both directions, and the folder it lies in.

Byte-level BPE with a split pattern that has a scanner becomes a `VocabularyFile`, the rest a `PipelineFile`. What a
file asks for and is not done is one error that names it. Knows nothing of how text is encoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from highrise.core.errors import InputError
from highrise.core.json_text import decode_json
from highrise.encode import steps
from highrise.encode.config import MAX_IDS
from highrise.encode.formats import Special, VocabularyFile
from highrise.encode.patterns import EXPRESSIONS
from highrise.encode.pipeline import MODEL_OPTIONS, Added, PipelineFile

__all__ = ["read_folder", "read_tokenizer_json", "write_tokenizer_json"]

_UNTOUCHED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")


class _Document(msgspec.Struct):
    model: dict[str, Any]
    added_tokens: list[Added] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None
    post_processor: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    truncation: dict[str, Any] | None = None
    padding: dict[str, Any] | None = None


def read_tokenizer_json(content: bytes, *, name: str) -> VocabularyFile | PipelineFile:
    """Read the bytes of a tokenizer.json; `name` stands in errors."""
    try:
        document = decode_json(content, _Document)
    except msgspec.MsgspecError as error:
        raise InputError(f"{name} is not a tokenizer.json: {error}") from error
    for field in ("truncation", "padding"):
        if getattr(document, field) is not None:
            raise InputError(f"{name} is not supported: it has {field}; set it to null")
    options = dict(document.model)
    vocabulary = options.pop("vocab", None)
    tokens, scores = _read_vocabulary(vocabulary, name=name)
    merges = _read_merges(options.pop("merges", []), name=name)
    options["type"] = options.get("type") or _guess_type(vocabulary, bool(merges))
    for added in document.added_tokens:
        if not 0 <= added.id < MAX_IDS:
            raise InputError(f"{name} is damaged: the added token {added.content!r} has the id {added.id}")
    scheme = _fast_scheme(document, options, tokens, name=name)
    if scheme is not None:
        before, after = steps.added_around(document.post_processor, name=name)
        return VocabularyFile(
            scheme=scheme,
            specials=[
                Special(added.content, added.id, not added.special and not added.content.strip())
                for added in document.added_tokens
            ],
            tokens=tokens,
            merges=[f"{left} {right}" for left, right in merges],
            whole_pieces=bool(options.get("ignore_merges")),
            nfc=document.normalizer is not None,
            before=before,
            after=after,
        )
    return PipelineFile(
        tokens=tokens,
        scores=scores,
        merges=merges,
        model=options,
        added=document.added_tokens,
        normalizer=document.normalizer,
        pre_tokenizer=document.pre_tokenizer,
        post_processor=document.post_processor,
        decoder=document.decoder,
        name=name,
    )


def _guess_type(vocabulary: object, has_merges: bool) -> str:
    """Old files do not name the type of their model."""
    return "Unigram" if isinstance(vocabulary, list) else "BPE" if has_merges else "WordPiece"


def _read_vocabulary(vocabulary: object, *, name: str) -> tuple[list[str], list[float]]:
    """Tokens by id ("" is a hole) and, where the file has them, their scores."""
    if isinstance(vocabulary, list):
        for index, entry in enumerate(vocabulary):
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)) or not isinstance(
                entry[1], int | float
            ):
                raise InputError(f"{name} is damaged: entry {index} of its vocabulary is {str(entry)[:60]!r}")
        return [entry[0] for entry in vocabulary], [float(entry[1]) for entry in vocabulary]
    if not isinstance(vocabulary, dict):
        raise InputError(f"{name} is not a tokenizer.json: its vocabulary is {str(vocabulary)[:60]!r}")
    for token, index in vocabulary.items():
        if type(index) is not int or not 0 <= index < MAX_IDS:
            raise InputError(
                f"{name} is damaged: it has token ids outside 0 to {MAX_IDS - 1} ({token[:60]!r} is {str(index)[:60]})"
            )
    tokens = [""] * (max(vocabulary.values(), default=-1) + 1)
    for token, index in vocabulary.items():
        if tokens[index]:
            raise InputError(f"{name} is damaged: id {index} belongs to {tokens[index][:60]!r} and to {token[:60]!r}")
        tokens[index] = token
    return tokens, []


def _read_merges(merges: object, *, name: str) -> list[tuple[str, str]]:
    if not isinstance(merges, list):
        raise InputError(f"{name} is not a tokenizer.json: its merges are {str(merges)[:60]!r}")
    found = []
    for rank, merge in enumerate(merges):
        sides = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, str) for side in sides):
            raise InputError(f"{name}: merge {rank} {str(merge)[:60]!r} is not two tokens with a blank between")
        found.append((sides[0], sides[1]))
    return found


def _fast_scheme(document: _Document, model: Mapping[str, Any], tokens: list[str], *, name: str) -> str | None:
    """The scanner that does all that this file asks for before its byte-level BPE; None if there is none."""
    if model.get("type") != "BPE" or any(model.get(key) for key in _UNTOUCHED):
        return None
    if not steps.ends_in_byte_level(document.pre_tokenizer, name=name):
        return None
    if any(added.lstrip or added.rstrip or added.single_word for added in document.added_tokens):
        return None
    changes = steps.normalizers(document.normalizer, name=name)
    if changes not in ([], [{"type": "NFC"}]) or (document.normalizer is not None and not changes):
        return None
    splits = steps.pre_tokenizers(document.pre_tokenizer, name=name)
    if splits == [{"type": "Digits", "individual_digits": True}, {"type": "Scheme", "scheme": "gpt2"}]:
        return "smollm"
    return str(splits[0]["scheme"]) if len(splits) == 1 and splits[0]["type"] == "Scheme" else None


class _TokenizerConfig(msgspec.Struct):
    eos_token: str | dict[str, object] | None = None
    bos_token: str | dict[str, object] | None = None
    add_bos_token: bool = False


def _content(token: str | dict[str, object] | None) -> str | None:
    return str(token.get("content")) if isinstance(token, dict) else token


def read_folder(folder: Path) -> VocabularyFile | PipelineFile:
    """The tokenizer.json of a folder, with the end and begin tokens of tokenizer_config.json beside it."""
    path = folder / "tokenizer.json"
    try:
        file = read_tokenizer_json(path.read_bytes(), name=str(path))
    except OSError as error:
        raise InputError(f"{folder} has no readable tokenizer.json: {error.strerror or error}") from error
    beside = folder / "tokenizer_config.json"
    if not beside.exists():
        return file
    try:
        config = decode_json(beside.read_bytes(), _TokenizerConfig)
    except msgspec.MsgspecError as error:
        raise InputError(f"{beside} cannot be read: {error}") from error
    if isinstance(file, PipelineFile):
        ids = {added.content: added.id for added in file.added}
    else:
        ids = {special.text: special.id for special in file.specials}
    return msgspec.structs.replace(
        file,
        eos_id=ids.get(_content(config.eos_token) or ""),
        bos_id=ids.get(_content(config.bos_token) or ""),
        add_bos=config.add_bos_token,
    )


def write_tokenizer_json(file: VocabularyFile) -> bytes:
    """The bytes of a tokenizer.json that Hugging Face's tokenizers loads with the same ids.

    Special tokens stand in the model's vocabulary too: `tokenizers` renumbers added tokens whose ids leave a gap.
    """
    vocab = {token: index for index, token in enumerate(file.tokens) if token}
    vocab.update((special.text, special.id) for special in file.specials)
    last: dict[str, object] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": file.scheme in ("gpt2", "smollm"),
    }
    parts: list[dict[str, object]] = []
    if file.scheme == "smollm":
        parts = [{"type": "Digits", "individual_digits": True}]
    elif file.scheme != "gpt2":
        pattern = {"Regex": EXPRESSIONS[file.scheme]}
        parts = [{"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}]
    added = [
        {
            "id": special.id,
            "content": special.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": not special.in_plain_text,
        }
        for special in sorted(file.specials, key=lambda special: special.id)
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if file.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*parts, last]} if parts else last,
        "post_processor": _template(file),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            **MODEL_OPTIONS["BPE"],
            "ignore_merges": file.whole_pieces,
            "vocab": vocab,
            "merges": [merge.split(" ") for merge in file.merges],
        },
    }
    return msgspec.json.encode(content)


def _template(file: VocabularyFile) -> dict[str, object] | None:
    if not file.before and not file.after:
        return None
    names = {special.id: special.text for special in file.specials}
    missing = [index for index in (*file.before, *file.after) if index not in names]
    assert not missing, f"ids {missing} around a text are no special tokens"
    part: list[dict[str, object]] = [{"SpecialToken": {"id": names[index], "type_id": 0}} for index in file.before]
    behind: list[dict[str, object]] = [{"SpecialToken": {"id": names[index], "type_id": 0}} for index in file.after]
    single: list[dict[str, object]] = [*part, {"Sequence": {"id": "A", "type_id": 0}}, *behind]
    special = {names[i]: {"id": names[i], "ids": [i], "tokens": [names[i]]} for i in {*file.before, *file.after}}
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
