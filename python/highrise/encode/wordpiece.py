"""Floor 3, WordPiece: the tokeniser of BERT's children, ids exactly those of `tokenizers` on the same tokenizer.json.

Normalises (clean, lower-case, strip accents, space out CJK), splits at white space and punctuation, then takes the
longest known piece again and again (Devlin et al. 2018; Schuster and Nakajima 2012). A word is looked up once and then
remembered. Knows nothing of byte-level BPE, padding or models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.core.json_text import decode_json

__all__ = ["WordPiece"]

_ASCII_PUNCTUATION = frozenset(r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""")
_ASCII_CLEAN = {code: None for code in (*range(9), 11, 12, *range(14, 32), 127)}
_ASCII_WORD = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_MAX_REMEMBERED = 1 << 18


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]
    unk_token: str = "[UNK]"
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class _Normalizer(msgspec.Struct):
    type: str
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _File(msgspec.Struct):
    model: _Model
    normalizer: _Normalizer
    added_tokens: list[_AddedToken] = []


class WordPiece:
    """An uncased BERT vocabulary; safe to share between threads (the only state is a cache of finished words)."""

    def __init__(self, vocabulary: dict[str, int], *, special: dict[str, int], unknown: str, prefix: str, limit: int):
        self.vocabulary = vocabulary
        self.special = special
        self.cls_id = special["[CLS]"]
        self.sep_id = special["[SEP]"]
        self.pad_id = special["[PAD]"]
        self._unknown = (vocabulary[unknown],)
        self._prefix = prefix
        self._limit = limit
        self._longest = max(map(len, vocabulary))
        self._words: dict[str, tuple[int, ...]] = {}
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, sorted(special, key=len, reverse=True))) + ")")

    @classmethod
    def from_file(cls, path: Path) -> WordPiece:
        """Read a `tokenizer.json` whose model is an uncased WordPiece; `InputError` for any other."""
        try:
            file = decode_json(path.read_bytes(), _File)
        except OSError as error:
            raise InputError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise InputError(f"{path} is not a WordPiece tokenizer.json: {error}") from error
        normalizer = file.normalizer
        uncased = normalizer.lowercase and normalizer.strip_accents is not False
        if file.model.type != "WordPiece" or normalizer.type != "BertNormalizer" or not uncased:
            raise InputError(
                f"{path} holds a {file.model.type} model behind a {normalizer.type}; only uncased WordPiece is read"
            )
        special = {token.content: token.id for token in file.added_tokens if token.special}
        missing = [name for name in ("[CLS]", "[SEP]", "[PAD]") if name not in special]
        if missing:
            raise InputError(f"{path} does not name the special tokens {', '.join(missing)}")
        return cls(
            file.model.vocab,
            special=special,
            unknown=file.model.unk_token,
            prefix=file.model.continuing_subword_prefix,
            limit=file.model.max_input_chars_per_word,
        )

    def encode(self, text: str, *, max_tokens: int | None = None) -> list[int]:
        """Token ids with [CLS] in front and [SEP] behind, cut on the right to `max_tokens` (at least 2)."""
        room = None if max_tokens is None else max(max_tokens - 2, 0)
        ids = [self.cls_id]
        for part in self._pieces(text):
            ids.extend(part)
            if room is not None and len(ids) > room:
                del ids[room + 1 :]
                break
        ids.append(self.sep_id)
        return ids

    def encode_batch(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text, max_tokens=max_tokens) for text in texts]

    def _pieces(self, text: str) -> Iterator[tuple[int, ...]]:
        words = self._words
        for part in self._special_pattern.split(text) if "[" in text else (text,):
            if part in self.special:
                yield (self.special[part],)
                continue
            for word in _split(part):
                ids = words.get(word)
                if ids is None:
                    if len(words) >= _MAX_REMEMBERED:
                        words.clear()
                    ids = words[word] = self._encode_word(word)
                yield ids

    def _encode_word(self, word: str) -> tuple[int, ...]:
        """Longest piece first; one piece that is missing makes the whole word unknown."""
        if len(word) > self._limit:
            return self._unknown
        ids: list[int] = []
        start = 0
        while start < len(word):
            prefix = self._prefix if start else ""
            end = min(len(word), start + self._longest)
            while end > start and (piece := self.vocabulary.get(prefix + word[start:end])) is None:
                end -= 1
            if end == start:
                return self._unknown
            assert piece is not None
            ids.append(piece)
            start = end
        return tuple(ids)


def _split(text: str) -> Iterator[str]:
    """Normalised words and single punctuation marks."""
    if text.isascii():
        return (match[0] for match in _ASCII_WORD.finditer(text.translate(_ASCII_CLEAN).lower()))
    return _split_unicode(text)


def _split_unicode(text: str) -> Iterator[str]:
    text = "".join(map(_CLEANED.__getitem__, text))
    text = unicodedata.normalize("NFD", text)
    word: list[str] = []
    for character in text:
        kind, lower = _FOLDED[character]
        if kind == "w":
            word.append(lower)
            continue
        if word:
            yield "".join(word)
            word.clear()
        if kind == "p":
            yield lower
    if word:
        yield "".join(word)


class _Cleaned(dict[str, str]):
    """Character to its cleaned form: nothing, a space, or itself (CJK between spaces)."""

    def __missing__(self, character: str) -> str:
        code = ord(character)
        category = unicodedata.category(character)
        if character in "\t\n\r" or (category in ("Zs", "Zl", "Zp")):
            result = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf", "Co", "Cs"):
            result = ""
        elif any(first <= code <= last for first, last in _CJK):
            result = f" {character} "
        else:
            result = character
        self[character] = result
        return result


class _Folded(dict[str, tuple[str, str]]):
    """Character to (kind, lower case): "w" of a word, "p" punctuation, "s" space; an accent is a word's empty part."""

    def __missing__(self, character: str) -> tuple[str, str]:
        category = unicodedata.category(character)
        if category == "Mn":
            result = ("w", "")
        elif character.isspace():
            result = ("s", "")
        elif character in _ASCII_PUNCTUATION or category[0] == "P":
            result = ("p", character)
        else:
            result = ("w", character.lower())
        self[character] = result
        return result


_CLEANED = _Cleaned()
_FOLDED = _Folded()
