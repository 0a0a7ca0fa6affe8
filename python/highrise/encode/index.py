"""Floor 3, the search index: finds chunks of the sources by words and by meaning, and fuses the two.

The fusion is by rank alone (reciprocal rank fusion; Cormack, Clarke and Büttcher 2009): BM25 and cosine have no common
scale. A chunk that the time budget left without a vector keeps its rank by words in both. Without the embedder's
weights, without vectors, or while the store that keeps them does not answer, words alone decide. Knows nothing of how
an index is built.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError, InputError
from highrise.core.json_text import decode_json
from highrise.encode.chunk_store import ChunkStore
from highrise.encode.index_build import INFO_FILE, IndexInfo, build_index
from highrise.encode.index_config import IndexConfig
from highrise.encode.lexical import LexicalIndex
from highrise.encode.minilm import Embedder, MiniLm
from highrise.encode.nearest import Nearest, open_nearest

__all__ = ["Hit", "IndexConfig", "Mode", "SearchIndex", "build_index"]

Mode = Literal["fused", "lexical", "vector"]

_RANK_CONSTANT = 10
"""Of 5, 10, 20 and the usual 60 the one with the best mean reciprocal rank (docs/log/encode-search.md)."""
_CANDIDATES = 100
_TRY_AGAIN_SECONDS = 30.0
"""How long a store, or a model, that could not be used is left alone."""
_NONE: npt.NDArray[np.int64] = np.zeros(0, np.int64)


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk that was found; lines count from 1, both inside."""

    path: str
    source: str
    start_line: int
    end_line: int
    text: str
    score: float
    """Comparable within one search only."""
    language: str
    symbol: str
    own: bool


class SearchIndex:
    """An opened index. `search` may be called from many threads."""

    def __init__(self, folder: Path, *, embedder: Embedder | None = None) -> None:
        try:
            self.info = decode_json((folder / INFO_FILE).read_bytes(), IndexInfo)
        except FileNotFoundError as error:
            raise InputError(
                f"{folder} is not a search index: it has no {INFO_FILE}; "
                "build one with `highrise encode index DATA OUT`"
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise InputError(f"{folder / INFO_FILE} is damaged ({error}); build the index again") from error
        self.folder = folder
        self.note = ""
        """Why the last search used words alone although there are vectors; empty otherwise."""
        self._store = ChunkStore(folder / "chunks")
        self._lexical = LexicalIndex(folder / "lexical", len(self._store))
        self._languages = np.array([record.language for record in self._store.records])
        self._own = np.array([record.own for record in self._store.records], bool)
        self._embedded = np.zeros(len(self._store), bool)
        self._lock = threading.Lock()
        self._embedder = embedder
        self._vectors: Nearest | None = None
        self._try_again = 0.0

    @classmethod
    def open(cls, folder: Path, *, embedder: Embedder | None = None) -> SearchIndex:
        """Open an index folder. Vectors and embedder are opened by the first search that needs them."""
        return cls(folder, embedder=embedder)

    def close(self) -> None:
        """Let go of the connection to a store; a later search opens it again."""
        with self._lock:
            if self._vectors is not None:
                self._vectors.close()
                self._vectors = None

    def __len__(self) -> int:
        return len(self._store)

    @property
    def languages(self) -> list[str]:
        """The languages of the chunks, sorted."""
        return sorted(set(self._languages.tolist()))

    def search(
        self,
        query: str,
        *,
        limit: int = 10,
        languages: Iterable[str] | None = None,
        own: bool | None = None,
        mode: Mode = "fused",
    ) -> list[Hit]:
        """The chunks that answer `query` best, at most `limit`; only of `languages` and of `own` sources if given."""
        if limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1")
        if not query.strip():
            raise InputError("the query is empty; write what to search for")
        if not len(self._store):
            return []
        languages = None if languages is None else sorted({language.lower() for language in languages})
        allowed = self._allowed(languages, own)
        breadth = max(_CANDIDATES, limit)
        by_words = _NONE if mode == "vector" else _top(self._lexical.scores(query), breadth, allowed)
        by_meaning = None if mode == "lexical" else self._nearest(query, breadth, languages, own, allowed)
        if by_meaning is None and mode == "vector":
            raise InputError(self.note or f"the index {self.folder} has no vectors; search it by words")
        scores: dict[int, float] = {}
        for rank, number in enumerate(by_words.tolist(), 1):
            without_vector = by_meaning is not None and not self._embedded[number]
            scores[number] = (2 if without_vector else 1) / (_RANK_CONSTANT + rank)
        for rank, number in enumerate([] if by_meaning is None else by_meaning.tolist(), 1):
            scores[number] = scores.get(number, 0.0) + 1 / (_RANK_CONSTANT + rank)
        best = sorted(scores, key=lambda number: (-scores[number], number))[:limit]
        return [self._hit(number, scores[number]) for number in best]

    def _allowed(self, languages: list[str] | None, own: bool | None) -> npt.NDArray[np.bool_] | None:
        if languages is None and own is None:
            return None
        result = np.ones(len(self._store), bool)
        if languages is not None:
            result &= np.isin(self._languages, languages)
        if own is not None:
            result &= self._own == own
        return result

    def _nearest(
        self,
        query: str,
        limit: int,
        languages: list[str] | None,
        own: bool | None,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[np.int64] | None:
        """Chunk numbers by cosine, or None when there are no vectors to compare with."""
        vectors = self._open_vectors()
        if vectors is None or self._embedder is None:
            return None
        query_vector = self._embedder.embed([query])[0]
        try:
            found = vectors.find(query_vector, limit, languages=languages, own=own, allowed=allowed)
        except HighriseError as error:
            with self._lock:
                self._leave_alone(error)
            return None
        self.note = ""
        return found

    def _open_vectors(self) -> Nearest | None:
        if not self.info.num_vectors:
            return None
        with self._lock:
            if time.monotonic() < self._try_again:
                return None
            if self._vectors is None:
                try:
                    if self._embedder is None:
                        folder = locate(self.info.embedder)
                        self._embedder = MiniLm.load(folder, name=self.info.embedder, max_tokens=self.info.max_tokens)
                    self._vectors = open_nearest(
                        self.folder / "vectors", self.info.store, dimension=self._embedder.dimension
                    )
                    self._embedded[self._vectors.chunks] = True
                except HighriseError as error:
                    self._leave_alone(error)
            return self._vectors

    def _leave_alone(self, error: HighriseError) -> None:
        self.note = f"searched by words alone: {error}"
        self._try_again = time.monotonic() + _TRY_AGAIN_SECONDS

    def _hit(self, number: int, score: float) -> Hit:
        record = self._store.records[number]
        return Hit(
            path=record.path,
            source=record.source,
            start_line=record.start_line,
            end_line=record.end_line,
            text=self._store.text(number),
            score=round(score, 6),
            language=record.language,
            symbol=record.symbol,
            own=record.own,
        )


def _top(scores: npt.NDArray[np.float32], limit: int, allowed: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """Numbers of the highest scores above zero, highest first, earlier chunks first among equals."""
    if allowed is not None:
        scores = np.where(allowed, scores, np.float32(0))
    if limit < len(scores):
        least = np.partition(scores, -limit)[-limit]
        found = np.flatnonzero(scores >= max(least, np.finfo(np.float32).tiny))
    else:
        found = np.flatnonzero(scores > 0)
    order = np.lexsort((found, -scores[found]))
    result: npt.NDArray[np.int64] = found[order[:limit]]
    return result
