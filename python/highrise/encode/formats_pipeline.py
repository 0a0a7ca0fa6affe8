"""Floor 3, formats_pipeline: tokenizers of many steps out, as tokenizer.json that `tokenizers` loads.

SentencePiece's own rules have no step there, so they are spelled with the steps that come nearest; where these give
other ids is written in docs/floors/3-encode.md. Knows nothing of files in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from highrise.core.errors import InputError
from highrise.encode.formats_sentencepiece import USER_DEFINED
from highrise.encode.pipeline import Added, PipelineFile

__all__ = ["write_pipeline_json"]

_BLANK = "\u2581"


def write_pipeline_json(file: PipelineFile) -> bytes:
    """The bytes of a tokenizer.json with the ids of `file`."""
    if file.model["type"].startswith("SentencePiece"):
        file = _as_steps(file)
    model: dict[str, Any] = dict(file.model)
    if model["type"] == "Unigram":
        model["vocab"] = list(zip(file.tokens, file.scores, strict=True))
    else:
        model["vocab"] = {token: index for index, token in enumerate(file.tokens) if token}
    if model["type"] == "BPE":
        model["merges"] = file.merges
    return msgspec.json.encode(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": sorted(file.added, key=lambda added: added.id),
            "normalizer": file.normalizer,
            "pre_tokenizer": file.pre_tokenizer,
            "post_processor": file.post_processor,
            "decoder": file.decoder,
            "model": model,
        }
    )


def _replace(pattern: str, content: str, *, regex: bool = True) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def _as_steps(file: PipelineFile) -> PipelineFile:
    rules = file.normalizer
    assert rules is not None
    if rules["treat_whitespace_as_suffix"] or not rules["escape_whitespaces"]:
        raise InputError(
            f"{file.name} cannot be written as tokenizer.json: its blanks stand behind words or are not escaped"
        )
    chosen = [token for token, kind in zip(file.tokens, file.kinds, strict=True) if kind == USER_DEFINED]
    dummy, extra = rules["add_dummy_prefix"], rules["remove_extra_whitespaces"]
    changes: list[dict[str, Any]] = []
    if rules["precompiled_charsmap"]:
        changes.append({"type": "Precompiled", "precompiled_charsmap": rules["precompiled_charsmap"]})
    if extra:
        changes += [_replace(r"\A +", ""), _replace(" {2,}", " ")]
    changes.append(_replace(" ", _BLANK, regex=False))
    if dummy and not chosen:
        changes.append({"type": "Prepend", "prepend": _BLANK})
    if extra:
        changes.append(_replace(rf"{_BLANK}+\z", ""))
    # The blank in front must not become a part of the user-defined pieces that are looked for in normalised text.
    first = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": "first", "split": False}
    is_bpe = file.model["type"] == "SentencePieceBPE"
    unknown = file.tokens[file.model["unk_id"]]
    merges = list(_merges(file)) if is_bpe else []
    if is_bpe:
        model = {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": file.model["byte_fallback"],
            "ignore_merges": False,
        }
    else:
        model = {**file.model, "type": "Unigram"}
    back: list[dict[str, Any]] = [_replace(_BLANK, " ", regex=False), {"type": "ByteFallback"}, {"type": "Fuse"}]
    if dummy or extra:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return msgspec.structs.replace(
        file,
        model=model,
        merges=merges,
        kinds=b"",
        added=[*file.added, *(Added(file.tokens.index(token), token) for token in chosen)],
        normalizer={"type": "Sequence", "normalizers": changes},
        pre_tokenizer=first if dummy and chosen else None,
        decoder={"type": "Sequence", "decoders": back},
    )


def _merges(file: PipelineFile) -> Iterator[tuple[str, str]]:
    """Every way to make a piece of two pieces, the best score first, as SentencePiece merges."""
    mergeable = {
        token: file.scores[index]
        for index, token in enumerate(file.tokens)
        if file.kinds[index] in (1, USER_DEFINED, 5)
    }
    # A user-defined piece is never a part of a merge.
    parts = {token for index, token in enumerate(file.tokens) if file.kinds[index] in (1, 5)}
    found = []
    for token, score in mergeable.items():
        for middle in range(1, len(token)):
            left, right = token[:middle], token[middle:]
            if left in parts and right in parts:
                found.append((-score, -middle, left, right))
    found.sort(key=lambda merge: merge[:2])
    for _, _, left, right in found:
        yield left, right
