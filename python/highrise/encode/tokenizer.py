"""Floor 3, tokenizer: text to token ids and back, with exactly the ids of the tool a vocabulary comes from.

Special tokens in a text are plain text unless the caller allows them. The work is in Rust (`rust/encode`); this file
knows neither file formats (`formats*.py`) nor prompts (`prompt.py`).
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write
from highrise.core.native import rust
from highrise.core.progress import Progress
from highrise.encode import formats
from highrise.encode.formats import Special, VocabularyFile
from highrise.encode.formats_huggingface import write_tokenizer_json
from highrise.encode.formats_pipeline import write_pipeline_json
from highrise.encode.formats_sentencepiece import CONTROL
from highrise.encode.formats_tiktoken import read_named, read_ranks, write_ranks
from highrise.encode.pipeline import PipelineFile, build
from highrise.encode.spans import Spans, character_before, to_characters
from highrise.encode.steps import added_around
from highrise.encode.texts import Texts, as_batch, map_file, put_around, without_surrogates

__all__ = ["DecodeStream", "SpecialChoice", "Tokenizer"]

SpecialChoice = str | Collection[str]
"""Which special tokens a text may hold: "none", "all", or a set of their texts."""

Unit = Literal["bytes", "characters"]

_loaded: WeakValueDictionary[str, Tokenizer] = WeakValueDictionary()
"""By fingerprint: what was unpickled twice in one process is one object."""


class DecodeStream:
    """Text of a growing list of ids; what is returned never ends inside a character."""

    __slots__ = ("_at_start", "_stream", "_tokenizer")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = rust.TextStream()
        self._at_start = True

    def push(self, token_id: int) -> str:
        """The text that has become whole with this id, maybe none."""
        content = self._tokenizer.token(token_id, first=self._at_start)
        self._at_start = self._at_start and not content and self._tokenizer._stays_at_start(token_id)
        text: str = self._stream.push(content)
        return text

    def finish(self) -> str:
        """What is left at the end; a character that never became whole is U+FFFD."""
        text: str = self._stream.finish()
        return text


class Tokenizer:
    """A tokenizer. Immutable; any number of threads may use it at once. Two of the same content are equal."""

    def __init__(
        self, file: VocabularyFile | PipelineFile, *, path: Path | None = None, fingerprint: str | None = None
    ) -> None:
        self._file: PipelineFile | None = None
        """What a tokenizer of many steps was made of; of a plain one, the native object gives it back."""
        self.special_tokens: dict[str, int]
        self._native: Any
        if isinstance(file, PipelineFile):
            self._file = file
            self._native = build(file)
            self.special_tokens = {added.content: added.id for added in file.added}
            self._before, self._after = added_around(file.post_processor, name=file.name)
        else:
            self._native = _build_plain(file)
            self.special_tokens = {special.text: special.id for special in file.specials}
            self._before, self._after = file.before, file.after
        self._path = path
        self._has_ranks = isinstance(file, VocabularyFile) and bool(file.ranks)
        self.fingerprint = fingerprint or _fingerprint(file)
        """Of the content; equal tokenizers have the same."""
        self.eos_ids: tuple[int, ...] = formats.end_ids(file.eos_id, self.special_tokens)
        self.bos_id: int | None = file.bos_id
        self.add_bos: bool = file.add_bos
        """Whether the model was trained with `bos_id` before every text; `encode` does not add it."""
        _loaded[self.fingerprint] = self

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a vocabulary file; which kind it is, its first bytes say.

        A tokenizer.json, a SentencePiece model, a tekken JSON, a published tiktoken rank file, a GGUF file, or what
        `save_binary` wrote.
        """
        path = Path(path)
        return cls(formats.read_file(path), path=path)

    @classmethod
    def from_bytes(cls, content: bytes, *, name: str = "the given bytes") -> Tokenizer:
        """Read the bytes of any of these but GGUF; `name` stands in errors."""
        return cls(formats.read_bytes(content, name=name))

    @classmethod
    def named(cls, name: str, *, folder: str | Path | None = None) -> Tokenizer:
        """One of tiktoken's encodings: gpt2, r50k_base, p50k_base, p50k_edit, cl100k_base, o200k_base, o200k_harmony.

        Nothing is downloaded. The rank file is looked for in `folder`, in tiktoken's own cache, among the files of
        installed packages that carry it, and in the model cache; its sha256 must match.
        """
        file, path = read_named(name, None if folder is None else Path(folder))
        tokenizer = cls(file)
        tokenizer._path = path if formats.read_file(path) == file else None
        return tokenizer

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
        texts: Texts | Iterable[str] = (),
        *,
        vocabulary: int,
        pattern: str = "qwen2",
        special: Sequence[str] = (),
        min_count: int = 2,
        threads: int = 1,
        files: Sequence[str | Path] = (),
        memory: int | None = None,
        progress: Progress | None = None,
    ) -> Tokenizer:
        """Learn a new vocabulary of texts, of files of any size, or both; see `highrise.encode.train`.

        `memory` in bytes lets counts beyond it go to files; `progress` hears of the bytes counted.
        """
        from highrise.encode.train import train_tokenizer

        return train_tokenizer(
            texts,
            vocabulary=vocabulary,
            pattern=pattern,
            special=special,
            min_count=min_count,
            threads=threads,
            files=files,
            memory=memory,
            progress=progress,
        )

    def encode(self, text: str, *, special: SpecialChoice = "none", add_special_tokens: bool = False) -> list[int]:
        """The ids of `text`; with `add_special_tokens` also those that the file's post-processor puts around a text."""
        try:
            ids: list[int] = self._native.encode(text, **self._choose(special))
        except UnicodeEncodeError:
            ids = self._native.encode(without_surrogates(text), **self._choose(special))
        return [*self._before, *ids, *self._after] if add_special_tokens else ids

    def encode_array(
        self, text: str, *, special: SpecialChoice = "none", add_special_tokens: bool = False
    ) -> npt.NDArray[np.uint32]:
        """The ids of `text` as one uint32 array."""
        try:
            ids: npt.NDArray[np.uint32] = self._native.encode_array(text, **self._choose(special))
        except UnicodeEncodeError:
            ids = self._native.encode_array(without_surrogates(text), **self._choose(special))
        if add_special_tokens:
            return np.concatenate([np.array(self._before, np.uint32), ids, np.array(self._after, np.uint32)])
        return ids

    def encode_bytes(self, content: bytes) -> list[int]:
        """The ids of any bytes, special tokens as plain text; `decode_bytes` gives the same bytes back.

        Bytes that are no UTF-8 are pieces of their own. A vocabulary that does not work on bytes (SentencePiece,
        WordPiece) cannot hold them: `InputError`. (A vocabulary that normalises text does so here too.)
        """
        ids: list[int] = self._native.encode_bytes(bytes(content))
        return ids

    def encode_batch(
        self, texts: Texts, *, threads: int = 1, special: SpecialChoice = "none", add_special_tokens: bool = False
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """All ids one after another, and int64 offsets, one more than texts: text i is `ids[o[i] : o[i + 1]]`.

        `texts` is a list of str, of UTF-8 bytes or of paths of files, a column of strings (Arrow, polars, pandas on
        Arrow), an array of numpy strings, or a pair of flat arrays (uint8 bytes, offsets). Columns and flat arrays are
        not copied, numpy's strings are; files are read whole (`encode_file` maps one).
        """
        _check_threads(threads)
        options = self._choose(special)
        batch = as_batch(texts)
        if isinstance(batch, tuple):
            ids, offsets = self._native.encode_flat(*batch, threads=threads, **options)
        else:
            batch = batch if isinstance(batch, list) else list(batch)
            try:
                ids, offsets = self._native.encode_batch(batch, threads=threads, **options)
            except UnicodeEncodeError:
                clean = [without_surrogates(text) if isinstance(text, str) else text for text in batch]
                ids, offsets = self._native.encode_batch(clean, threads=threads, **options)
        return put_around(ids, offsets, self._before, self._after) if add_special_tokens else (ids, offsets)

    def encode_file(
        self, path: str | Path, *, threads: int = 1, special: SpecialChoice = "none"
    ) -> npt.NDArray[np.uint32]:
        """The ids of a UTF-8 text file, which is mapped, not read; it must not change meanwhile."""
        _check_threads(threads)
        path = Path(path)
        data, offsets = map_file(path)
        try:
            ids: npt.NDArray[np.uint32]
            ids, _ = self._native.encode_flat(data, offsets, threads=threads, **self._choose(special))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return ids

    def encode_with_offsets(
        self, text: str, *, special: SpecialChoice = "none", unit: Unit = "bytes"
    ) -> tuple[list[int], Spans]:
        """The ids and, for each, what it stands for as (start, end): bytes of the UTF-8 of `text`, or characters.

        Where normalisation changed the text, a token has what its characters came from; where NFC did so before
        byte-level BPE, each token has the whole stretch between two special tokens. In characters, a token that holds a
        part of a character has that whole character.
        """
        if unit not in ("bytes", "characters"):
            raise InputError(f'unit = "{unit}": write "bytes" or "characters"')
        text = text if text.isascii() else without_surrogates(text)
        ids, offsets = self._native.encode_with_offsets(text, **self._choose(special))
        return ids, offsets if unit == "bytes" else to_characters(text, offsets)

    def count(
        self,
        text: str,
        *,
        limit: int | None = None,
        special: SpecialChoice = "none",
        add_special_tokens: bool = False,
    ) -> int:
        """Number of ids of `text`; with `limit`, counting stops early and anything above it is `limit + 1`."""
        extra = len(self._before) + len(self._after) if add_special_tokens else 0
        room = None if limit is None else max(limit - extra, 0)
        try:
            found: int = self._native.count(text, limit=room, **self._choose(special))
        except UnicodeEncodeError:
            found = self._native.count(without_surrogates(text), limit=room, **self._choose(special))
        return found + extra if limit is None else min(found + extra, limit + 1)

    def truncate(
        self,
        text: str,
        limit: int,
        *,
        keep: Literal["start", "end"] = "start",
        special: SpecialChoice = "none",
    ) -> str:
        """The longest start (or end) of `text` that ends between two of its tokens and has at most `limit` ids."""
        if limit < 0 or keep not in ("start", "end"):
            raise InputError(f'limit = {limit}, keep = "{keep}": give a limit of 0 or more, and "start" or "end"')
        text = text if text.isascii() else without_surrogates(text)
        window = 64 + 16 * limit
        while window < len(text):
            part = text[:window] if keep == "start" else text[-window:]
            if self.count(part, special=special, limit=limit + 16) > limit + 16:
                break
            window *= 4
        part = text[:window] if keep == "start" else text[-window:]
        ids, spans = self.encode_with_offsets(part, special=special)
        if len(ids) <= limit and len(part) == len(text):
            return text
        content = part.encode()
        for kept in range(min(limit, len(ids)), 0, -1):
            at = character_before(content, spans[kept - 1][1] if keep == "start" else spans[-kept][0])
            found = (content[:at] if keep == "start" else content[at:]).decode()
            # A start of a text may split otherwise than the text does, so what was cut is counted once more.
            if self.count(found, special=special, limit=limit) <= limit:
                return found
        return ""

    def decode(self, ids: Sequence[int] | npt.NDArray[np.uint32], *, skip_special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD. With `skip_special`, special tokens are left out."""
        if self._file is not None:
            text: str = self._native.decode(_plain(ids), skip_special=skip_special)
            return text
        text = self._native.decode(self._without_specials(ids) if skip_special else _plain(ids))
        return text

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> bytes:
        """The bytes of ids."""
        content: bytes = self._native.decode_bytes(_plain(ids))
        return content

    def _without_specials(self, ids: Sequence[int] | npt.NDArray[np.uint32]) -> list[int]:
        special = set(self.special_tokens.values())
        return [index for index in ids if index not in special]

    def decode_batch(
        self, ids: Sequence[Sequence[int]] | npt.NDArray[np.uint32], offsets: npt.NDArray[np.int64] | None = None
    ) -> list[str]:
        """The texts of lists of ids, or of flat ids with the offsets that `encode_batch` gives."""
        if offsets is None:
            return [self.decode(one) for one in ids]
        assert isinstance(ids, np.ndarray)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise InputError(f"offsets must rise from 0 to the {len(ids)} ids")
        return [self.decode(ids[start:end]) for start, end in itertools.pairwise(offsets)]

    def _stays_at_start(self, token_id: int) -> bool:
        """Whether the text still begins after an id that added nothing: only SentencePiece sees it so."""
        if self._file is None or not self._file.kinds:
            return False
        rules = self._file.decoder or {}
        return bool(rules.get("drops_all")) or self._file.kinds[token_id] == CONTROL

    def decode_stream(self) -> DecodeStream:
        """A decoder for ids that come one by one."""
        return DecodeStream(self)

    def token(self, token_id: int, *, first: bool = False) -> bytes:
        """The bytes that one id adds to a text; `first` at its start, where some vocabularies drop a blank."""
        if token_id < 0:
            raise InputError(f"{token_id} is no token id: ids start at 0")
        content: bytes = (
            self._native.token(token_id) if self._file is None else self._native.token(token_id, first=first)
        )
        return content

    def spelling(self, token_id: int) -> str:
        """How the vocabulary spells one id: "▁the", "##ing", "<0x0A>"; of byte-level BPE, its text."""
        if token_id < 0:
            raise InputError(f"{token_id} is no token id: ids start at 0")
        if self._file is None:
            return self.token(token_id).decode("utf-8", "replace")
        text: str = self._native.spelling(token_id)
        return text

    def id(self, token: str | bytes) -> int | None:
        """The id of a token by its spelling (or its bytes), special or not; None when there is none."""
        found: int | None = self._native.id(token.encode() if isinstance(token, str) else token)
        return found

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        size: int = self._native.vocab_size
        return size

    @property
    def scheme(self) -> str:
        """Name of the split pattern: gpt2, smollm, cl100k, llama3, qwen2 or o200k; else the kind of model."""
        name: str = self._native.scheme if self._file is None else self._file.model["type"]
        return name

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json that Hugging Face's tokenizers loads with the same ids."""
        with atomic_write(Path(path)) as file:
            file.write(self.to_json())

    def save_binary(self, path: str | Path) -> None:
        """Write a file that loads faster than any other and holds all that is known here; only Highrise reads it."""
        with atomic_write(Path(path)) as file:
            file.write(formats.write_binary(self._to_file()))

    def to_json(self) -> bytes:
        """The bytes that `save` writes."""
        file = self._to_file()
        return write_pipeline_json(file) if isinstance(file, PipelineFile) else write_tokenizer_json(file)

    def to_ranks(self) -> bytes:
        """A tiktoken rank file: one base64 token and its id a line, without the special tokens.

        `InputError` when the ids are not in the order of the merges, which is what a rank file says of them.
        """
        if self._file is not None:
            raise InputError(
                f"a rank file holds plain byte-level BPE, this is {self.scheme} with steps; save a tokenizer.json"
            )
        special = set(self.special_tokens.values())
        spelled, merges = self._native.byte_level()
        tokens = {index: self.token(index) for index, text in enumerate(spelled) if text and index not in special}
        ids = {text: index for index, text in enumerate(spelled)}
        if not self._has_ranks:
            results = [ids[left + right] for left, right in merges]
            wrong = next((index for index, token in tokens.items() if self._native.merge_piece(token) != [index]), None)
            if self._native.nfc or wrong is not None or any(a >= b for a, b in itertools.pairwise(results)):
                raise InputError(
                    "a rank file of this vocabulary would give other ids (its ids are not in the order of its merges, "
                    "it normalises text, or a token is not what its own bytes encode to); save a tokenizer.json instead"
                )
        return write_ranks(tokens)

    def _to_file(self) -> VocabularyFile | PipelineFile:
        if self._file is not None:
            return self._file
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
            before=self._before,
            after=self._after,
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

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __copy__(self) -> Tokenizer:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Tokenizer:
        return self

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size}, scheme={self.scheme!r}, path={self._path})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._path is not None:
            return _restore, (str(self._path), self.fingerprint)
        packed = zlib.compress(formats.write_binary(self._to_file()), 6)
        return _unpack, (packed, self.fingerprint)


def _build_plain(file: VocabularyFile) -> Any:
    specials = [(special.text, special.id, special.in_plain_text) for special in file.specials]
    if file.ranks:
        return rust.BytePairTokenizer.from_ranks(file.ranks, scheme=file.scheme, specials=specials)
    return rust.BytePairTokenizer.from_byte_level(
        file.tokens,
        file.merges,
        scheme=file.scheme,
        specials=specials,
        whole_pieces=file.whole_pieces,
        nfc=file.nfc,
    )


def _fingerprint(file: VocabularyFile | PipelineFile) -> str:
    if isinstance(file, PipelineFile):
        file = msgspec.structs.replace(file, name="")
    return hashlib.sha256(msgspec.msgpack.encode(file)).hexdigest()[:32]


def _restore(path: str, fingerprint: str) -> Tokenizer:
    found = _loaded.get(fingerprint)
    if found is not None:
        return found
    tokenizer = Tokenizer.for_weights(path)
    if tokenizer.fingerprint != fingerprint:
        raise EncodeError(f"{path} has changed since the tokenizer was pickled; pickle it again")
    return tokenizer


def _unpack(packed: bytes, fingerprint: str) -> Tokenizer:
    found = _loaded.get(fingerprint)
    if found is not None:
        return found
    file = formats.read_bytes(zlib.decompress(packed), name="the pickled tokenizer")
    return Tokenizer(file, fingerprint=fingerprint)


def _check_threads(threads: int) -> None:
    if threads < 1:
        raise InputError(f"threads = {threads}: at least one thread is needed")


def _plain(ids: Iterable[int] | npt.NDArray[np.uint32]) -> object:
    if isinstance(ids, np.ndarray):
        return ids if ids.dtype == np.uint32 and ids.flags.c_contiguous else ids.tolist()
    return ids if isinstance(ids, list) else list(ids)
