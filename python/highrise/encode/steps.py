"""Floor 3, steps: normalisers, pre-tokenisers, decoders and post-processors of tokenizer.json as flat lists for Rust.

Every key of a step is read or refused by name: a step that would be half understood would give other ids in silence.
Knows nothing of vocabularies. Words and defaults are those of Hugging Face's `tokenizers`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from highrise.core.errors import InputError
from highrise.encode.patterns import PATTERNS

__all__ = ["Step", "added_around", "decoders", "ends_in_byte_level", "normalizers", "pre_tokenizers"]

Step = dict[str, Any]

_PLAIN_NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")
_SENTENCEPIECE = ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces", "treat_whitespace_as_suffix")
_PLAIN_SPLITS = ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
# What Oniguruma reads otherwise than the engine here.
_FOREIGN = re.compile(r"\\[hHRXKGyYOW]|\(\?[a-z]*[mxa]|\[\[:|&&|\(\?<?[#~|@]|\\p\{\^")
_INTERVAL = re.compile(r"(\\[pP]\{\w+\}|\[(?:\\.|[^\]\\])*\]|\\.|[^\\\s(){}|*+?])(\{\d+(?:,\d*)?\})\+")


class _Reader:
    """One step, from which keys are taken; what is left over at the end is an error."""

    def __init__(self, step: Mapping[str, Any], *, what: str, name: str) -> None:
        self.rest = dict(step)
        self.what, self.name = what, name
        self.type = self.take("type", str)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        value = self.rest.pop(key, default)
        if value is ... or (value is not default and not isinstance(value, kind)):
            raise InputError(f"{self.name} is damaged: {self.what} has no usable {key!r} ({str(value)[:60]})")
        return value

    def refuse(self, reason: str) -> InputError:
        return InputError(f"{self.name} is not supported: it has {reason}")

    def done(self) -> None:
        if self.rest:
            key, value = next(iter(self.rest.items()))
            raise self.refuse(f"{self.what} {self.type} with {key} = {str(value)[:60]!r}")


def _flat(step: Mapping[str, Any] | None, inner: str, *, what: str, name: str) -> list[_Reader]:
    if step is None:
        return []
    if not isinstance(step, Mapping):
        raise InputError(f"{name} is damaged: {what} is {str(step)[:60]!r}")
    reader = _Reader(step, what=what, name=name)
    if reader.type != "Sequence":
        return [reader]
    parts = reader.take(inner, list)
    reader.done()
    return [found for part in parts for found in _flat(part, inner, what=what, name=name)]


def _pattern(reader: _Reader) -> Step:
    pattern = reader.take("pattern", dict)
    if isinstance(pattern.get("String"), str):
        return {"pattern": pattern["String"], "is_regex": False}
    if not isinstance(pattern.get("Regex"), str):
        raise reader.refuse(f"the pattern {pattern!r}")
    expression = pattern["Regex"]
    if (foreign := _FOREIGN.search(expression)) is not None:
        raise reader.refuse(f"the pattern {expression!r}, whose {foreign[0]!r} is read otherwise here")
    # Oniguruma reads a{1,3}+ as (a{1,3})+, and its \w has no joiners.
    expression = _INTERVAL.sub(r"(?:\1\2)+", expression).replace(r"\w", r"[\w--[\x{200C}\x{200D}]]")
    return {"pattern": expression, "is_regex": True}


def normalizers(step: Mapping[str, Any] | None, *, name: str) -> list[Step]:
    """Normalisers in order; `name` stands in errors."""
    found: list[Step] = []
    for reader in _flat(step, "normalizers", what="the normalizer", name=name):
        kind = reader.type
        one: Step = {"type": kind}
        if kind == "Strip":
            one.update({key: reader.take(key, bool, True) for key in ("strip_left", "strip_right")})
        elif kind == "BertNormalizer":
            keys = ("clean_text", "handle_chinese_chars", "lowercase")
            one.update({key: reader.take(key, bool, True) for key in keys})
            accents = reader.take("strip_accents", bool, None)
            one["strip_accents"] = one["lowercase"] if accents is None else accents
        elif kind == "Prepend":
            one["prepend"] = reader.take("prepend", str)
        elif kind == "Replace":
            one.update(_pattern(reader), content=reader.take("content", str))
        elif kind == "Precompiled":
            one["charsmap"] = _base64(reader)
        elif kind == "SentencePiece":
            one.update({key: reader.take(key, bool) for key in _SENTENCEPIECE}, charsmap=_base64(reader))
        elif kind not in _PLAIN_NORMALIZERS:
            raise reader.refuse(f"the normalizer {kind}")
        reader.done()
        found.append(one)
    return found


def _base64(reader: _Reader) -> bytes:
    content = reader.take("precompiled_charsmap", str, None)
    try:
        return base64.b64decode(content or "", validate=True)
    except binascii.Error as error:
        raise InputError(f"{reader.name} is damaged: precompiled_charsmap is no base64 ({error})") from error


def ends_in_byte_level(step: Mapping[str, Any] | None, *, name: str) -> bool:
    """Whether the pre-tokeniser turns text into GPT-2's byte alphabet."""
    parts = _flat(step, "pretokenizers", what="the pre_tokenizer", name=name)
    if any(part.type == "ByteLevel" for part in parts[:-1]):
        raise parts[0].refuse("the pre_tokenizer ByteLevel before another; it must be the last")
    return bool(parts) and parts[-1].type == "ByteLevel"


def pre_tokenizers(step: Mapping[str, Any] | None, *, name: str) -> list[Step]:
    """Pre-tokenisers in order; the byte alphabet itself is the model's business."""
    found: list[Step] = []
    for reader in _flat(step, "pretokenizers", what="the pre_tokenizer", name=name):
        kind = reader.type
        if kind == "ByteLevel":
            reader.take("trim_offsets", bool, True)
            if reader.take("add_prefix_space", bool, True):
                found.append({"type": "PrefixBlank"})
            if reader.take("use_regex", bool, True):
                found.append({"type": "Scheme", "scheme": "gpt2"})
        elif kind == "Split":
            found.append(_split(reader))
        elif kind == "Metaspace":
            found.append({"type": kind, **_metaspace(reader), "split": reader.take("split", bool, None) is not False})
        elif kind == "Punctuation":
            found.append({"type": kind, "behavior": reader.take("behavior", str, "Isolated")})
        elif kind == "Digits":
            found.append({"type": kind, "individual_digits": reader.take("individual_digits", bool, False)})
        elif kind == "CharDelimiterSplit":
            found.append({"type": kind, "delimiter": reader.take("delimiter", str)})
        elif kind == "FixedLength":
            found.append({"type": kind, "length": reader.take("length", int, 5)})
        elif kind in _PLAIN_SPLITS:
            found.append({"type": kind})
        else:
            raise reader.refuse(f"the pre_tokenizer {kind}")
        reader.done()
    return found


def _split(reader: _Reader) -> Step:
    behavior, invert = reader.take("behavior", str), reader.take("invert", bool, False)
    given = reader.rest.get("pattern")
    scheme = PATTERNS.get(str(given.get("Regex"))) if isinstance(given, dict) else None
    # With "Removed" and invert the matches are kept; with "Isolated" too, and these patterns match everything.
    if scheme is not None and (behavior, invert) in (("Isolated", False), ("Removed", True)):
        reader.take("pattern", dict)
        return {"type": "Scheme", "scheme": scheme}
    return {"type": "Split", **_pattern(reader), "behavior": behavior, "invert": invert}


def _metaspace(reader: _Reader) -> Step:
    mark = reader.take("replacement", str, "\u2581")
    scheme = reader.take("prepend_scheme", str, "always")
    reader.take("str_rep", str, None)
    if reader.take("add_prefix_space", bool, True) is False:
        if scheme not in ("always", "never"):
            raise reader.refuse(f"Metaspace with add_prefix_space = false and prepend_scheme = {scheme!r}")
        scheme = "never"
    if len(mark) != 1:
        raise reader.refuse(f"Metaspace with the replacement {mark!r}; it must be one character")
    return {"replacement": mark, "prepend_scheme": scheme}


def decoders(step: Mapping[str, Any] | None, *, name: str) -> list[Step]:
    """Decoders in order."""
    found: list[Step] = []
    for reader in _flat(step, "decoders", what="the decoder", name=name):
        kind = reader.type
        one: Step = {"type": kind}
        if kind == "ByteLevel":
            for key in ("add_prefix_space", "trim_offsets", "use_regex"):
                reader.take(key, bool, True)
        elif kind == "Metaspace":
            space = _metaspace(reader)
            reader.take("split", bool, None)
            one.update(replacement=space["replacement"], drops_first=space["prepend_scheme"] != "never")
        elif kind == "WordPiece":
            one.update(prefix=reader.take("prefix", str, "##"), cleanup=reader.take("cleanup", bool, True))
        elif kind == "Strip":
            one.update(content=reader.take("content", str), **{key: reader.take(key, int) for key in ("start", "stop")})
        elif kind == "Replace":
            one.update(_pattern(reader), content=reader.take("content", str))
        elif kind == "BPEDecoder":
            one["suffix"] = reader.take("suffix", str, "</w>")
        elif kind == "SentencePiece":
            one.update({key: reader.take(key, bool) for key in ("drops_blank", "drops_all")})
            one["unknown"] = reader.take("unknown", str)
        elif kind not in ("ByteFallback", "Fuse"):
            raise reader.refuse(f"the decoder {kind}")
        reader.done()
        found.append(one)
    return found


def added_around(step: Mapping[str, Any] | None, *, name: str) -> tuple[list[int], list[int]]:
    """The ids that a post-processor puts before and after one text."""
    before: list[int] = []
    after: list[int] = []
    for reader in _flat(step, "processors", what="the post_processor", name=name):
        left: Sequence[int] = ()
        right: Sequence[int] = ()
        if reader.type == "TemplateProcessing":
            left, right = _template(reader)
        elif reader.type in ("BertProcessing", "RobertaProcessing"):
            left, right = ([_pair(reader, key)] for key in ("cls", "sep"))
            reader.take("trim_offsets", bool, True)
            reader.take("add_prefix_space", bool, True)
        elif reader.type == "ByteLevel":
            for key in ("add_prefix_space", "trim_offsets", "use_regex"):
                reader.take(key, bool, True)
        else:
            raise reader.refuse(f"the post_processor {reader.type}")
        reader.done()
        before, after = [*left, *before], [*after, *right]
    return before, after


def _pair(reader: _Reader, key: str) -> int:
    value = reader.take(key, list)
    if len(value) != 2 or not isinstance(value[1], int):
        raise InputError(f"{reader.name} is damaged: the post_processor has {key} = {value!r}")
    return int(value[1])


def _template(reader: _Reader) -> tuple[list[int], list[int]]:
    reader.take("pair", list, None)
    single, special = reader.take("single", list), reader.take("special_tokens", dict)
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for part in single:
        if not isinstance(part, dict) or len(part) != 1:
            raise InputError(f"{reader.name} is damaged: the post_processor has the part {part!r}")
        if "Sequence" in part:
            if side or part["Sequence"].get("id") != "A":
                raise reader.refuse(f"a post_processor that wants the text twice ({single!r})")
            side = 1
        else:
            token = special.get(part.get("SpecialToken", {}).get("id"))
            if not isinstance(token, dict) or not all(isinstance(index, int) for index in token.get("ids", [None])):
                raise InputError(f"{reader.name} is damaged: the post_processor does not say what {part!r} is")
            sides[side].extend(token["ids"])
    if not side:
        raise reader.refuse("a post_processor that leaves the text out")
    return sides
