"""Floor 3, formats_sentencepiece: a SentencePiece `.model`, which is one protocol-buffers message.

The few fields that decide about ids and text are read by hand (layout: sentencepiece_model.proto); a file that is cut
or damaged is one error. Knows nothing of how text is encoded.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

from highrise.core.errors import InputError
from highrise.encode.config import MAX_IDS
from highrise.encode.pipeline import Added, PipelineFile

__all__ = ["CONTROL", "USER_DEFINED", "looks_like_sentencepiece", "make_pipeline", "read_sentencepiece"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
_MODELS = {1: "SentencePieceUnigram", 2: "SentencePieceBPE"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Message:
    """Field number to the values it has, in order."""

    def __init__(self, content: bytes) -> None:
        self.fields: dict[int, list[Any]] = {}
        for number, value in _fields(content):
            self.fields.setdefault(number, []).append(value)

    def last(self, number: int, default: Any, kind: type) -> Any:
        value = self.fields.get(number, [default])[-1]
        if not isinstance(value, kind):
            raise ValueError(f"field {number} is of another kind")
        return value


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes | float]]:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            if shift > 63:
                raise ValueError(f"a number at byte {at} does not end")

    while at < len(content):
        tag = varint()
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            yield number, varint()
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            yield number, struct.unpack_from("<f" if size == 4 else "<d", content, at)[0]
            at += size
        elif kind == _BYTES:
            size = varint()
            if at + size > len(content):
                raise ValueError(f"it ends inside field {number}")
            yield number, content[at : at + size]
            at += size
        else:
            raise ValueError(f"byte {at} has the unknown wire type {kind}")


def looks_like_sentencepiece(content: bytes) -> bool:
    """Whether it begins with one piece, as every model does."""
    if content[:1] != b"\n" or len(content) < 8:
        return False
    # A piece of under 128 bytes: its length, then its text (field 1) with a length that fits.
    return content[2] == 0x0A and content[3] < content[1] < 0x80


def read_sentencepiece(content: bytes, *, name: str) -> PipelineFile:
    """Read the bytes of a `.model`; `name` stands in errors."""
    try:
        model = _Message(content)
        trainer = _Message(model.last(2, b"", bytes))
        rules = _Message(model.last(3, b"", bytes))
        back = _Message(model.last(5, b"", bytes))
        tokens: list[str] = []
        scores: list[float] = []
        kinds = bytearray()
        for part in model.fields.get(1, []):
            piece = _Message(part)
            tokens.append(piece.last(1, b"", bytes).decode("utf-8"))
            scores.append(piece.last(2, 0.0, float))
            kinds.append(piece.last(3, NORMAL, int) & 0xFF)
        kind = trainer.last(3, 1, int)
        normalizer = {
            "type": "SentencePiece",
            "precompiled_charsmap": base64.b64encode(rules.last(2, b"", bytes)).decode(),
            "add_dummy_prefix": bool(rules.last(3, 1, int)),
            "remove_extra_whitespaces": bool(rules.last(4, 1, int)),
            "escape_whitespaces": bool(rules.last(5, 1, int)),
            "treat_whitespace_as_suffix": bool(trainer.last(24, 0, int)),
        }
        byte_fallback = bool(trainer.last(35, 0, int))
        surface = trainer.last(44, " \u2047 ".encode(), bytes).decode("utf-8")
        rewrites = bool(back.last(2, b"", bytes))
    except (ValueError, IndexError, struct.error, TypeError) as error:
        raise InputError(f"{name} is not a whole SentencePiece model: {error}") from error
    if kind not in _MODELS:
        raise InputError(
            f"{name} is not supported: it has a SentencePiece model of type {kind} (unigram is 1, BPE is 2)"
        )
    if rewrites:
        raise InputError(f"{name} is not supported: it has a denormalizer_spec, which changes decoded text")
    return make_pipeline(
        tokens,
        scores,
        bytes(kinds),
        kind=_MODELS[kind],
        normalizer=normalizer,
        byte_fallback=byte_fallback,
        unknown_text=surface,
        name=name,
    )


def make_pipeline(
    tokens: list[str],
    scores: list[float],
    kinds: bytes,
    *,
    kind: str,
    normalizer: dict[str, Any],
    byte_fallback: bool,
    unknown_text: str,
    name: str,
) -> PipelineFile:
    """A tokenizer with SentencePiece's rules, from whatever file its pieces come."""
    if not 0 < len(tokens) <= MAX_IDS or "" in tokens:
        raise InputError(f"{name} is damaged: it has {len(tokens)} pieces, or an empty one")
    unknown = [index for index, one in enumerate(kinds) if one == UNKNOWN]
    if len(unknown) != 1:
        raise InputError(f"{name} is damaged: it has {len(unknown)} pieces for what is unknown; one is needed")
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        # Text becomes pieces of these kinds only, so the others may be spelled like one of them.
        if kinds[index] in (NORMAL, USER_DEFINED, UNUSED) and seen.setdefault(token, index) != index:
            raise InputError(f"{name} is damaged: the pieces {seen[token]} and {index} are both {token!r}")
    drops = normalizer["add_dummy_prefix"] or normalizer["remove_extra_whitespaces"]
    names = {token: index for index, token in enumerate(tokens) if kinds[index] == CONTROL}
    return PipelineFile(
        tokens=tokens,
        scores=scores,
        kinds=kinds,
        model={"type": kind, "unk_id": unknown[0], "byte_fallback": byte_fallback},
        added=[Added(index, token, special=True, normalized=False) for token, index in names.items()],
        normalizer=normalizer,
        decoder={
            "type": "SentencePiece",
            "drops_blank": drops,
            "drops_all": normalizer["remove_extra_whitespaces"],
            "unknown": unknown_text,
        },
        eos_id=names.get("</s>"),
        bos_id=names.get("<s>"),
        name=name,
    )
