"""Floor 3, tokenizer: text to token ids and back, with exactly the ids of the tool a vocabulary comes from.

Special tokens in a text are plain text unless the caller allows them. The work is in Rust (`rust/encode`); this file
knows neither file formats (`formats*.py`) nor prompts (`prompt.py`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write
from highrise.core.native import rust
from highrise.encode import formats
from highrise.encode.formats import Special, VocabularyFile
from highrise.encode.formats_huggingface import write_tokenizer_json
from highrise.encode.formats_tiktoken import read_ranks

__all__ = ["DecodeStream", "SpecialChoice", "Tokenizer", "without_surrogates"]

SpecialChoice = str | Collection[str]
"""Which special tokens a text may hold: "none", "all", or a set of their texts."""

_loaded: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
"""By fingerprint: what was unpickled twice in one process is one object."""


class DecodeStream:
    """Text of a growing list of ids; what is returned never ends inside a character."""

    __slots__ = ("_stream", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = rust.TextStream()

    def push(self, token_id: int) -> str:
        """The text that has become whole with this id, maybe none."""
        text: str = self._stream.push(self._tokenizer.token(token_id))
        return text

    def finish(self) -> str:
        """What is left at the end; a character that never became whole is U+FFFD."""
        text: str = self._stream.finish()
        return text


class Tokenizer:
    """A byte-level BPE tokenizer. Immutable; any number of threads may use it at once."""

    def __init__(self, file: VocabularyFile, *, path: Path | None = None) -> None:
        specials = [(special.text, special.id, special.in_plain_text) for special in file.specials]
        if file.ranks:
            self._native: Any = rust.BytePairTokenizer.from_ranks(file.ranks, scheme=file.scheme, specials=specials)
        else:
            self._native = rust.BytePairTokenizer.from_byte_level(
                file.tokens,
                file.merges,
                scheme=file.scheme,
                specials=specials,
                whole_pieces=file.whole_pieces,
                nfc=file.nfc,
            )
        self._path = path
        self.fingerprint = hashlib.sha256(msgspec.msgpack.encode(file)).hexdigest()[:32]
        self.special_tokens: dict[str, int] = {special.text: special.id for special in file.specials}
        self.eos_ids: tuple[int, ...] = formats.end_ids(file.eos_id, self.special_tokens)
        self.bos_id: int | None = file.bos_id
        self.add_bos: bool = file.add_bos
        """Whether the model was trained with `bos_id` before every text; `encode` does not add it."""
        _loaded[self.fingerprint] = self

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a tokenizer.json, a published tiktoken rank file or the vocabulary of a GGUF file."""
        path = Path(path)
        return cls(formats.read_file(path), path=path)

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str = "the given bytes") -> Tokenizer:
        """Read the bytes of a tokenizer.json or of a published tiktoken rank file; `name` stands in errors."""
        return cls(formats.read_bytes(content, name=name))

    @classmethod
    def from_ranks(cls, path: str | Path, *, scheme: str, specials: Mapping[str, int] | None = None) -> Tokenizer:
        """Read a tiktoken rank file of your own, with the split pattern and special tokens it was made for."""
        path = Path(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read the ranks {path}: {error.strerror or error}") from error
        return cls(read_ranks(content, name=str(path), scheme=scheme, specials=dict(specials or {})))

    @classmethod
    def for_weights(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a GGUF file or of a folder in Hugging Face's layout."""
        path = Path(path)
        return cls(formats.read_weights(path), path=path)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocabulary: int,
        pattern: str = "qwen2",
        special: Sequence[str] = (),
        min_count: int = 2,
        threads: int = 1,
    ) -> Tokenizer:
        """Learn a new vocabulary; see `highrise.encode.train`."""
        from highrise.encode.train import train_tokenizer

        return train_tokenizer(
            texts, vocabulary=vocabulary, pattern=pattern, special=special, min_count=min_count, threads=threads
        )

    def encode(self, text: str, *, special: SpecialChoice = "none") -> list[int]:
        """The ids of `text`."""
        try:
            ids: list[int] = self._native.encode(text, **self._choose(special))
        except UnicodeEncodeError:
            ids = self._native.encode(without_surrogates(text), **self._choose(special))
        return ids

    def encode_array(self, text: str, *, special: SpecialChoice = "none") -> npt.NDArray[np.uint32]:
        """The ids of `text` as one uint32 array."""
        try:
            ids: npt.NDArray[np.uint32] = self._native.encode_array(text, **self._choose(special))
        except UnicodeEncodeError:
            ids = self._native.encode_array(without_surrogates(text), **self._choose(special))
        return ids

    def encode_batch(
        self, texts: Sequence[str], *, threads: int = 1, special: SpecialChoice = "none"
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """All ids one after another, and int64 offsets, one more than texts: text i is `ids[o[i] : o[i + 1]]`."""
        if threads < 1:
            raise InputError(f"threads = {threads}: at least one thread is needed")
        options = self._choose(special)
        try:
            ids, offsets = self._native.encode_batch(list(texts), threads=threads, **options)
        except UnicodeEncodeError:
            clean = [without_surrogates(text) for text in texts]
            ids, offsets = self._native.encode_batch(clean, threads=threads, **options)
        return ids, offsets

    def encode_with_offsets(
        self, text: str, *, special: SpecialChoice = "none"
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids and, for each, the bytes of the UTF-8 of `text` it stands for, as (start, end).

        Where NFC changed the text between two special tokens, each token there has the offsets of that whole stretch.
        """
        text = text if text.isascii() else without_surrogates(text)
        ids, offsets = self._native.encode_with_offsets(text, **self._choose(special))
        return ids, offsets

    def count(self, text: str, *, limit: int | None = None, special: SpecialChoice = "none") -> int:
        """Number of ids of `text`; with `limit`, counting stops early and anything above it is `limit + 1`."""
        try:
            found: int = self._native.count(text, limit=limit, **self._choose(special))
        except UnicodeEncodeError:
            found = self._native.count(without_surrogates(text), limit=limit, **self._choose(special))
        return found if limit is None else min(found, limit + 1)

    def decode(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD."""
        text: str = self._native.decode(_plain(ids))
        return text

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        """The bytes of ids."""
        content: bytes = self._native.decode_bytes(_plain(ids))
        return content

    def decode_stream(self) -> DecodeStream:
        """A decoder for ids that come one by one."""
        return DecodeStream(self)

    def token(self, token_id: int) -> bytes:
        """The bytes of one id."""
        if token_id < 0:
            raise InputError(f"{token_id} is no token id: ids start at 0")
        content: bytes = self._native.token(token_id)
        return content

    def id(self, token: str | bytes) -> int | None:
        """The id of a token, special or not; None when there is none."""
        found: int | None = self._native.id(token.encode() if isinstance(token, str) else token)
        return found

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        size: int = self._native.vocab_size
        return size

    @property
    def scheme(self) -> str:
        """Name of the split pattern: gpt2, smollm, cl100k, llama3, qwen2 or o200k."""
        name: str = self._native.scheme
        return name

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that Hugging Face's tokenizers loads with the same ids."""
        with atomic_write(Path(path)) as file:
            file.write(self.to_json())

    def to_json(self) -> bytes:
        """The bytes that `save` writes."""
        return write_tokenizer_json(self._to_file())

    def _to_file(self) -> VocabularyFile:
        tokens, merges = self._native.byte_level()
        return VocabularyFile(
            scheme=self.scheme,
            specials=[Special(*special) for special in self._native.specials()],
            tokens=tokens,
            merges=[f"{left} {right}" for left, right in merges],
            whole_pieces=self._native.whole_pieces,
            nfc=self._native.nfc,
            eos_id=self.eos_ids[0] if self.eos_ids else None,
            bos_id=self.bos_id,
            add_bos=self.add_bos,
        )

    def _choose(self, special: SpecialChoice) -> dict[str, object]:
        if special == "none":
            return {}
        if special == "all":
            return {"all_specials": True}
        if isinstance(special, str):
            raise InputError(f'special = "{special}": write "none", "all" or a set of special tokens')
        chosen = sorted(special)
        for text in chosen:
            if text not in self.special_tokens:
                raise InputError(f"{text!r} is no special token of this vocabulary; it has {list(self.special_tokens)}")
        return {"specials": chosen}

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, scheme={self.scheme!r}, path={self._path})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is not None:
            return _restore, (str(self._path), self.fingerprint)
        packed = zlib.compress(msgspec.msgpack.encode(self._to_file()), 6)
        return _unpack, (packed,)


def _restore(path: str, fingerprint: str) -> Tokenizer:
    found = _loaded.get(fingerprint)
    if found is not None:
        return found
    tokenizer = Tokenizer.for_weights(path)
    if tokenizer.fingerprint != fingerprint:
        raise EncodeError(f"{path} has changed since the tokenizer was pickled; pickle it again")
    return tokenizer


def _unpack(packed: bytes) -> Tokenizer:
    return Tokenizer(msgspec.msgpack.decode(zlib.decompress(packed), type=VocabularyFile))


def without_surrogates(text: str) -> str:
    """Lone surrogates become U+FFFD, pairs become their character, as tiktoken does."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _plain(ids: Iterable[int] | npt.NDArray[np.uint32]) -> object:
    if isinstance(ids, np.ndarray):
        return ids if ids.dtype == np.uint32 and ids.flags.c_contiguous else ids.tolist()
    return ids if isinstance(ids, list) else list(ids)
