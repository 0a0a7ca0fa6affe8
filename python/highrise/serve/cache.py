"""Floor 6, cache: which pages hold the tokens of which sequence. Knows neither tensors nor who should go first.

Over the Rust allocator (`rust/serve`): one call a request or a step. Every page is either free or held; `check` counts.
What has to happen to the pages' content before the next step is noted here and done by the engine (`take_transfers`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import numpy.typing as npt

from highrise.core.native import rust
from highrise.serve.floating import FloatingPieces
from highrise.serve.sequence import Sequence

__all__ = ["Cache", "Move"]

_SLACK = 128 + 16
"""Kernels read in blocks of 128 tokens (`kKeyChunk`), and guesses may have slots behind the last token."""


@dataclasses.dataclass(slots=True, frozen=True)
class Move:
    """Copy `count` tokens of the sequence `source` from place `start` on to place `to` of the sequence `target`."""

    source: int
    start: int
    target: int
    to: int
    count: int


class Cache:
    """The pages of one decoder. No token sees further back than `window` tokens, itself included; 0 sees all."""

    def __init__(self, num_pages: int, page_size: int, *, window: int = 0) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._behind = window + _SLACK if window else 0
        self._pool: Any = rust.PageAllocator(num_pages, page_size)
        self._salts: dict[tuple[str, str], int] = {}
        self._next_salt = itertools.count(1)
        self.floating = FloatingPieces(self._pool.release)
        self._copies: list[tuple[int, int]] = []
        self._moves: dict[int, Move] = {}

    @property
    def num_free(self) -> int:
        """Pages that no sequence holds (their content may still be found)."""
        count: int = self._pool.num_free
        return count

    @property
    def capacity(self) -> int:
        """Tokens that all pages together hold."""
        return self.num_pages * self.page_size

    def salt(self, tenant: str, adapter: str | None) -> int:
        """Sequences of one tenant under one adapter share pages; others never do."""
        key = (tenant, adapter or "")
        if key == ("", ""):
            return 0
        if key not in self._salts:
            self._salts[key] = next(self._next_salt)
        return self._salts[key]

    def forget_adapter(self, adapter: str) -> None:
        """What was computed under that name is not found again: the next adapter of the name gets new salts."""
        self._salts = {key: salt for key, salt in self._salts.items() if key[1] != adapter}

    def private_salt(self) -> int:
        """A salt that nobody else has: nothing cached is found."""
        return next(self._next_salt)

    def admit(self, sequence: Sequence, *, headroom: int = 0) -> bool:
        """Reserve pages for all tokens of the sequence, sharing a computed beginning; False when there is no room.

        Pages that only wait for a floating piece to be used again are given up first.
        """
        assert sequence.handle is None
        tokens = np.array(sequence.tokens, dtype=np.uint32)
        while (admission := self._pool.allocate(tokens, sequence.salt, headroom)) is None:
            if not self.floating.drop_oldest():
                return False
        sequence.handle, sequence.num_computed, copy = admission
        if copy is not None:
            self._copies.append(copy)
        self._float(sequence)
        if sequence.num_preemptions == 0:
            moved = 0 if sequence.hole is None else sequence.hole[1] - sequence.hole[0]
            sequence.num_cached = sequence.num_computed + moved
        return True

    def _float(self, sequence: Sequence) -> None:
        """Plan to take the floating span from where it was computed before, if it was."""
        piece = self.floating.find(sequence)
        if piece is None or sequence.handle is None:
            return
        start, end = sequence.request.floating or (0, 0)
        first = max(start, sequence.num_computed)
        if end - first > 0:
            sequence.hole = (first, end)
            moved = Move(piece.handle, piece.start + first - start, sequence.handle, first, end - first)
            self._moves[sequence.handle] = moved

    def take_transfers(self) -> tuple[npt.NDArray[np.int32], list[Move]]:
        """Pages to copy, as rows of (from, to), and then tokens to move, before anything is computed."""
        copies, self._copies = self._copies, []
        moves, self._moves = [*self._moves.values()], {}
        return np.array(copies, dtype=np.int32).reshape(-1, 2), moves

    def append(self, sequences: Items[Sequence]) -> int:
        """A slot for the last token of each sequence; how many got one before the pages ran out."""
        first = 0
        while first < len(sequences):
            handles = np.array([sequence.handle for sequence in sequences[first:]], dtype=np.uint64)
            tokens = np.array([sequence.tokens[-1] for sequence in sequences[first:]], dtype=np.uint32)
            done, copies = self._pool.append(handles, tokens)
            self._copies += [(int(source), int(target)) for source, target in copies]
            first += int(done)
            if first < len(sequences) and not self.floating.drop_oldest():
                break
        return first

    def extend(self, sequence: Sequence, tokens: Items[int]) -> int:
        """Slots for tokens that may come after those of the sequence; how many there was room for."""
        handles = np.full(len(tokens), sequence.handle, dtype=np.uint64)
        done, copies = self._pool.append(handles, np.array(tokens, dtype=np.uint32))
        self._copies += [(int(source), int(target)) for source, target in copies]
        return int(done)

    def truncate(self, sequence: Sequence, length: int) -> None:
        """Give back the slots behind the first `length` tokens."""
        self._pool.truncate(sequence.handle, length)

    def commit(self, sequences: Items[Sequence]) -> None:
        """Tell the allocator what is computed, so that full pages can be shared."""
        handles = np.array([sequence.handle for sequence in sequences], dtype=np.uint64)
        counts = np.array([sequence.num_exact for sequence in sequences], dtype=np.int64)
        self._pool.commit(handles, counts)

    def slide(self, sequence: Sequence) -> None:
        """Give back the pages that no later token of the sequence can see; others may find them while they last.

        A floating span may be taken from any of its tokens later, so a sequence with one keeps all.
        """
        if not self._behind or sequence.handle is None or sequence.request.floating is not None:
            return
        num_slid = (sequence.num_computed - self._behind) // self.page_size
        if num_slid > sequence.num_slid:
            sequence.num_slid = num_slid
            self._pool.slide(sequence.handle, len(sequence.tokens) - sequence.num_computed + self._behind)

    def release(self, sequence: Sequence, *, keep_floating: bool = False) -> None:
        """Give back every page of the sequence; what was computed stays findable until it is overwritten.

        With `keep_floating` the pages of its floating span stay held, until others need them.
        """
        if sequence.handle is not None:
            self._moves.pop(sequence.handle, None)
            if not (keep_floating and self.floating.keep(sequence)):
                self._pool.release(sequence.handle)
            sequence.handle = None
            sequence.hole = None
            sequence.num_computed = 0
            sequence.num_slid = 0

    def row(self, handle: int) -> npt.NDArray[np.int32]:
        """The pages of one sequence, int32."""
        pages = np.full(-(-self._pool.length(handle) // self.page_size), -1, dtype=np.int32)
        self._pool.write_tables(np.array([handle], dtype=np.uint64), pages[None])
        return pages

    def write_tables(self, sequences: Items[Sequence], out: npt.NDArray[np.int32]) -> int:
        """One row of page numbers a sequence, -1 behind the end; the length of the longest row."""
        handles = np.array([sequence.handle for sequence in sequences], dtype=np.uint64)
        longest: int = self._pool.write_tables(handles, out)
        return longest

    def clear(self) -> None:
        """Forget every cached beginning and every floating piece."""
        self.floating.clear()
        self._pool.clear_cache()

    def statistics(self) -> dict[str, int]:
        """Counts since the start, and the state now."""
        counts: dict[str, int] = self._pool.statistics()
        return counts

    def check(self) -> None:
        """Count every reference anew; raises `ValueError` when a page is lost or held twice."""
        self._pool.check()
