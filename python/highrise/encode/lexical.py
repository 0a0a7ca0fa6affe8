"""Floor 3, lexical index: BM25 over words that know how programmers write them.

`readCsvFile` and `read_csv_file` are found by either, and by "read csv file". Postings lie in flat arrays (a row of
chunks a term) with the whole BM25 weight computed beforehand, so a query only adds rows (Robertson and Zaragoza 2009;
the idf is Lucene's; eager weights as in bm25s, Lu 2024). All is memory-mapped. Knows chunks only by their numbers.
"""

from __future__ import annotations

import bisect
import mmap
import re
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.files import atomic_write

__all__ = ["K1", "B", "LexicalIndex", "terms", "write_lexical"]

K1 = 1.5
"""How soon more of the same word stops counting. Both values did best of five pairs (docs/log/encode-search.md)."""
B = 0.9
"""How much a long text is held against it."""

_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_MAX_WORD = 64
_MAX_KNOWN = 1 << 16
_FILES = ("terms.bin", "term_ends.npy", "row_starts.npy", "row_chunks.npy", "row_weights.npy")


def terms(text: str) -> list[str]:
    """The terms of a text in order: each identifier in lower case, and after it its parts when it has several."""
    result: list[str] = []
    for match in _WORD.finditer(text):
        result.extend(_SPLIT[match[0]])
    return result


class _Split(dict[str, tuple[str, ...]]):
    """Word to its terms, remembered while there is room."""

    def __missing__(self, word: str) -> tuple[str, ...]:
        if len(self) >= 1 << 18:
            self.clear()
        result: tuple[str, ...] = ()
        if len(word) <= _MAX_WORD:
            whole = word.strip("_").lower()
            cut = _PART.findall(word) if word.isascii() else word.split("_")
            parts = [_singular(part.lower()) for part in cut if part]
            result = tuple(term for term in (whole, *parts) if term) if len(parts) > 1 else tuple(parts)
        self[word] = result
        return result


_SPLIT = _Split()


def _singular(word: str) -> str:
    """The one ending worth cutting: "files" is found by "file"."""
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] not in "sui" else word


def write_lexical(folder: Path, texts: Iterable[str]) -> dict[str, int]:
    """Index `texts`, numbered from 0, into files in `folder`; returns the counts of terms and postings."""
    numbers: dict[str, int] = {}
    occurrences = array("I")
    lengths = array("I")
    for text in texts:
        found = terms(text)
        lengths.append(len(found))
        occurrences.extend([numbers.setdefault(term, len(numbers)) for term in found])
    vocabulary = sorted((term.encode("utf-8", "surrogatepass"), number) for term, number in numbers.items())
    rank = np.empty(len(vocabulary), np.uint64)
    rank[[number for _, number in vocabulary]] = np.arange(len(vocabulary), dtype=np.uint64)

    length = np.frombuffer(lengths, np.uint32) if lengths else np.zeros(0, np.uint32)
    chunk = np.repeat(np.arange(len(length), dtype=np.uint64), length)
    term = rank[np.frombuffer(occurrences, np.uint32)] if occurrences else np.zeros(0, np.uint64)
    pairs, frequency = np.unique(term << np.uint64(32) | chunk, return_counts=True)
    row, chunks = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    documents = np.bincount(row, minlength=len(vocabulary))
    idf = np.log1p((len(length) - documents + 0.5) / (documents + 0.5))
    mean = max(float(length.mean()), 1.0) if len(length) else 1.0
    norm = K1 * (1 - B + B * length[chunks] / mean)
    weights = (idf[row] * frequency * (K1 + 1) / (frequency + norm)).astype(np.float32)

    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "terms.bin") as file:
        file.writelines(word for word, _ in vocabulary)
    arrays = (
        np.cumsum([len(word) for word, _ in vocabulary], dtype=np.int64),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(documents, dtype=np.int64)]),
        chunks,
        weights,
    )
    # Chunk numbers have the type that numpy indexes with: a narrower one is widened at every query, half of its time.
    for name, values in zip(_FILES[1:], arrays, strict=True):
        with atomic_write(folder / name) as file:
            np.save(file, values)
    return {"terms": len(vocabulary), "postings": len(pairs)}


class LexicalIndex:
    """An opened index of `num_chunks` texts; reading from many threads is safe."""

    def __init__(self, folder: Path, num_chunks: int) -> None:
        self.num_chunks = num_chunks
        try:
            ends, self._starts, self._chunks, self._weights = (
                np.load(folder / name, mmap_mode="r").view(np.ndarray) for name in _FILES[1:]
            )
            with (folder / _FILES[0]).open("rb") as file:
                blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if len(ends) else b""
        except (OSError, ValueError) as error:
            raise InputError(f"the lexical index in {folder} is damaged ({error}); build the index again") from error
        self._terms = _Terms(blob, ends)
        self._known: dict[str, slice] = {}

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """BM25 of every chunk: float32 (num_chunks,), zero where no term of the query occurs."""
        result = np.zeros(self.num_chunks, np.float32)
        for term in terms(query):
            span = self._known.get(term) or self._find(term)
            np.add.at(result, self._chunks[span], self._weights[span])
        return result

    def _find(self, term: str) -> slice:
        """Where the postings of `term` lie; remembered, since queries share their words."""
        row = self._terms.find(term.encode("utf-8", "surrogatepass"))
        span = slice(0, 0) if row is None else slice(int(self._starts[row]), int(self._starts[row + 1]))
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[term] = span
        return span


class _Terms:
    """Sorted byte strings in one blob."""

    def __init__(self, blob: mmap.mmap | bytes, ends: npt.NDArray[np.int64]) -> None:
        self._blob, self._ends = blob, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        return self._blob[int(self._ends[index - 1]) if index else 0 : int(self._ends[index])]

    def find(self, term: bytes) -> int | None:
        """The row of `term`."""
        row = bisect.bisect_left(self, term)
        return row if row < len(self) and self[row] == term else None
