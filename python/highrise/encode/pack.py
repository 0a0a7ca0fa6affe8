"""Floor 3, pack: a corpus to one packed token file: as it comes, shuffled, or in rows of one length.

It is made in parts that a kill leaves whole. Beside the file that is to be, a folder `NAME.parts` holds those that are
done and what they were made from; another run of the same goes on behind them. Knows texts as an iterator and a key.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.core.progress import Progress
from highrise.encode.middle import middle_samples
from highrise.encode.packed import Batch, PackedTokens, write_packed
from highrise.encode.rows import fill_rows
from highrise.encode.tokenizer import Tokenizer
from highrise.encode.train import batches

__all__ = ["PackOptions", "Packed", "documents_of_rows", "pack_texts"]

BATCH_CHARACTERS = 8 << 20
PART_TOKENS = 32 << 20
"""A part is written when it has so many; what a kill costs is at most the work for one."""

_GATHERED = 4096
"""Documents of a shuffled file that are gathered before they are written."""


class PackOptions(msgspec.Struct, frozen=True):
    """What a packed file depends on besides its texts and its vocabulary."""

    end: int | None = None
    """Put behind each document."""
    middle: float = 0.0
    """Share of the documents that become fill-in-the-middle samples."""
    seed: int = 0
    """Of these cuts."""
    shuffle: int | None = None
    """Seed of the order of documents, or of rows; None leaves them as they come (rows as best-fit makes them)."""
    rows: int | None = None
    """Length of all rows; None keeps documents."""


class Packed(msgspec.Struct, frozen=True):
    """What came of it."""

    tokens: int
    documents: int
    """Rows, where there are rows."""
    resumed: int = 0
    """Documents that an earlier run had done."""


class _Part(msgspec.Struct, frozen=True):
    texts: int
    batches: int


class _State(msgspec.Struct):
    key: str
    parts: list[_Part] = []


def documents_of_rows(path: Path) -> Path:
    """The packed file that says of each id in a file of rows which document of its row it belongs to; 0 is filling."""
    return path.with_name(f"{path.name}.documents")


def pack_texts(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    out: Path,
    *,
    options: PackOptions,
    key: str,
    threads: int,
    progress: Progress,
) -> Packed:
    """Write `out`; `key` must differ wherever `texts` do, so that parts of other texts are not taken for these.

    With `options.rows` there is a second file, see `documents_of_rows`.
    """
    if options.rows is not None and options.end is None:
        raise InputError(
            "rows are filled up with the end-of-text token, and this vocabulary has none or --no-end was given"
        )
    if options.rows is not None and options.rows < 1:
        raise InputError(f"rows of {options.rows} tokens cannot hold anything; give at least 1")
    folder = out.with_name(f"{out.name}.parts")
    made_of = [key, tokenizer.fingerprint, repr((options.end, options.middle, options.seed, BATCH_CHARACTERS))]
    state = _resume(folder, hashlib.sha256("\0".join(made_of).encode()).hexdigest())
    iterator = iter(texts)
    skipped = sum(part.texts for part in state.parts)
    for text in itertools.islice(iterator, skipped):
        progress.advance(_size(text), note="done before")
    last = _write_parts(iterator, tokenizer, folder, state, options, threads, progress)
    parts = [PackedTokens(_part_path(folder, index)) for index in range(len(state.parts))]
    if not parts and not any(len(offsets) > 1 for _, offsets in last):
        raise InputError("there is no text to pack")
    content: Iterator[Batch] = itertools.chain((_as_batch(part) for part in parts), last)
    if options.shuffle is None and options.rows is None:
        num_tokens, num_documents = write_packed(out, content, tokenizer.vocab_size)
    else:
        together = folder / "together.tokens"
        write_packed(together, content, tokenizer.vocab_size)
        num_tokens, num_documents = _rearrange(PackedTokens(together), out, options, tokenizer.vocab_size)
    shutil.rmtree(folder, ignore_errors=True)
    return Packed(num_tokens, num_documents, skipped)


def _resume(folder: Path, key: str) -> _State:
    """What is done of the same work; what is left of other work goes away."""
    try:
        state = msgspec.json.decode((folder / "state.json").read_bytes(), type=_State)
        if state.key == key and all(_part_path(folder, index).is_file() for index in range(len(state.parts))):
            return state
    except (OSError, msgspec.DecodeError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return _State(key)


def _part_path(folder: Path, index: int) -> Path:
    return folder / f"{index:05}.tokens"


def _write_parts(
    texts: Iterator[str],
    tokenizer: Tokenizer,
    folder: Path,
    state: _State,
    options: PackOptions,
    threads: int,
    progress: Progress,
) -> list[Batch]:
    """Writes whole parts and returns the batches of the last, which is none yet."""
    number = sum(part.batches for part in state.parts)
    waiting: list[Batch] = []
    num_texts = 0
    for batch in batches(texts, BATCH_CHARACTERS):
        waiting.append(_encode(batch, tokenizer, options, number, threads))
        number, num_texts = number + 1, num_texts + len(batch)
        progress.advance(sum(map(_size, batch)))
        if sum(len(ids) for ids, _ in waiting) >= PART_TOKENS:
            write_packed(_part_path(folder, len(state.parts)), waiting, tokenizer.vocab_size)
            state.parts.append(_Part(num_texts, len(waiting)))
            with atomic_write(folder / "state.json") as file:
                file.write(msgspec.json.encode(state))
            waiting, num_texts = [], 0
    return waiting


def _encode(batch: list[str], tokenizer: Tokenizer, options: PackOptions, number: int, threads: int) -> Batch:
    end = options.end
    if options.middle:
        samples = [
            ids if end is None or ids[-1:] == [end] else [*ids, end]
            for ids in middle_samples(tokenizer, batch, rate=options.middle, seed=options.seed + number)
        ]
        found = np.array(list(itertools.chain.from_iterable(samples)), dtype=np.uint32)
        return found, np.cumsum([0, *map(len, samples)], dtype=np.int64)
    found, offsets = tokenizer.encode_batch(batch, threads=threads)
    if end is None:
        return found, offsets
    return np.insert(found, offsets[1:], np.uint32(end)), offsets + np.arange(len(offsets), dtype=np.int64)


def _as_batch(packed: PackedTokens) -> Batch:
    return np.asarray(packed.tokens, dtype=np.uint32), np.asarray(packed.offsets)


def _rearrange(packed: PackedTokens, out: Path, options: PackOptions, vocab_size: int) -> tuple[int, int]:
    if options.rows is None:
        order = np.random.default_rng(options.shuffle).permutation(len(packed))
        return write_packed(out, _gathered(len(packed), lambda index: packed.document(order[index])), vocab_size)

    # Rows are drawn twice, for their ids and for the numbers of their documents, so that no more than one is held.
    def drawn() -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
        assert options.rows is not None and options.end is not None
        return fill_rows(packed.tokens, packed.offsets, options.rows, pad=options.end, seed=options.shuffle)

    write_packed(documents_of_rows(out), (_row(documents) for _, documents in drawn()), options.rows + 1)
    return write_packed(out, (_row(ids) for ids, _ in drawn()), vocab_size)


def _row(ids: npt.NDArray[np.integer]) -> Batch:
    return ids.astype(np.uint32), np.array([0, len(ids)], dtype=np.int64)


def _gathered(count: int, document: Callable[[int], npt.NDArray[np.integer]]) -> Iterator[Batch]:
    for first in range(0, count, _GATHERED):
        some = [document(index) for index in range(first, min(first + _GATHERED, count))]
        yield np.concatenate(some).astype(np.uint32), np.cumsum([0, *map(len, some)], dtype=np.int64)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
