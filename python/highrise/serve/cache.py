"""Floor 6, cache: which pages hold the tokens of which sequence. Knows neither tensors nor who should go first.

Over the Rust allocator (`rust/serve`): one call a request or a step. Every page is either free or held; `check` counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import numpy.typing as npt

from highrise.core.native import rust
from highrise.serve.sequence import Sequence

__all__ = ["Cache"]


class Cache:
    """The pages of one decoder."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._pool: Any = rust.PageAllocator(num_pages, page_size)
        self._salts: dict[tuple[str, str], int] = {}
        self._next_salt = itertools.count(1)

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

    def private_salt(self) -> int:
        """A salt that nobody else has: nothing cached is found."""
        return next(self._next_salt)

    def admit(self, sequence: Sequence, *, headroom: int = 0) -> bool:
        """Reserve pages for all tokens of the sequence, sharing a computed beginning; False when there is no room."""
        assert sequence.handle is None
        admission = self._pool.allocate(np.array(sequence.tokens, dtype=np.uint32), sequence.salt, headroom)
        if admission is None:
            return False
        sequence.handle, sequence.num_computed = admission
        if sequence.num_preemptions == 0:
            sequence.num_cached = sequence.num_computed
        return True

    def append(self, sequences: Items[Sequence]) -> int:
        """A slot for the last token of each sequence; how many got one before the pages ran out."""
        handles = np.array([sequence.handle for sequence in sequences], dtype=np.uint64)
        tokens = np.array([sequence.tokens[-1] for sequence in sequences], dtype=np.uint32)
        done, copies = self._pool.append(handles, tokens)
        assert len(copies) == 0, "a page shared by a fork was written, but the engine forks nothing"
        return int(done)

    def commit(self, sequences: Items[Sequence]) -> None:
        """Tell the allocator what is computed, so that full pages can be shared."""
        handles = np.array([sequence.handle for sequence in sequences], dtype=np.uint64)
        counts = np.array([sequence.num_computed for sequence in sequences], dtype=np.int64)
        self._pool.commit(handles, counts)

    def release(self, sequence: Sequence) -> None:
        """Give back every page of the sequence; what was computed stays findable until it is overwritten."""
        if sequence.handle is not None:
            self._pool.release(sequence.handle)
            sequence.handle = None
            sequence.num_computed = 0

    def write_tables(self, sequences: Items[Sequence], out: npt.NDArray[np.int32]) -> int:
        """One row of page numbers a sequence, -1 behind the end; the length of the longest row."""
        handles = np.array([sequence.handle for sequence in sequences], dtype=np.uint64)
        longest: int = self._pool.write_tables(handles, out)
        return longest

    def clear(self) -> None:
        """Forget every cached beginning."""
        self._pool.clear_cache()

    def statistics(self) -> dict[str, int]:
        """Counts since the start, and the state now."""
        counts: dict[str, int] = self._pool.statistics()
        return counts

    def check(self) -> None:
        """Count every reference anew; raises `ValueError` when a page is lost or held twice."""
        self._pool.check()
