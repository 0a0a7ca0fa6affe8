"""Floor 2, repeats: what repeats inside texts: long spans that stood before, and lines that stand in many texts.

Reported, or cut out of the texts. Knows nothing of files.
"""

from __future__ import annotations

import sys

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.data.columns import Texts, hand_over

__all__ = ["FrequentLines", "LineCounter", "Places", "Spans", "cut", "frequent_lines", "repeated_spans"]


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Stretches of texts; all (places,), in the order of the texts."""

    text: npt.NDArray[np.int64]
    """The text."""
    start: npt.NDArray[np.int64]
    """First byte of its UTF-8 form."""
    end: npt.NDArray[np.int64]
    """The byte after the last."""

    @property
    def bytes(self) -> int:
        """Bytes in all of them."""
        return int((self.end - self.start).sum())


class Spans(Places, frozen=True, kw_only=True):
    """Stretches that stood in the texts before, none overlapping another."""

    first_text: npt.NDArray[np.int64]
    """A text in which the longest part of it stood before."""
    first_start: npt.NDArray[np.int64]
    """The byte there at which that part begins."""


class FrequentLines(Places, frozen=True, kw_only=True):
    """Lines, each with its end of line, that stand in many texts."""

    texts: npt.NDArray[np.int64]
    """In how many texts the line stands."""


def repeated_spans(texts: Texts, *, min_bytes: int = 100, memory: int | None = None) -> Spans:
    """Find what stood in the texts before: the longest stretches of which every `min_bytes` bytes stand in an earlier
    text, or earlier in the same one without overlap.

    Exact, but that a passage of half the length which stands in more than 64 places is followed at 64 of them.
    Stretches are narrowed to whole UTF-8 sequences. One thread. Beside the texts, which may lie in a mapped file, it
    holds about 64 bytes for every `min_bytes / 2` of text; with `memory` at most so many bytes: the texts are then read
    several times, with a share of the fingerprints each time, and the same stretches are found.
    Method: rolling fingerprints (Karp and Rabin 1987) kept at every `min_bytes / 2`-th place, as in rsync.
    Raises `InputError` for `min_bytes` below 16.
    """
    if min_bytes < 16:
        raise InputError(f"min_bytes is {min_bytes}; use 16 or more")
    try:
        found = rust.data.repeated_spans(hand_over(texts), min_bytes, sys.maxsize if memory is None else max(memory, 1))
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot look for repeated spans: {error}") from error
    text, start, end, first_text, first_start = found
    return Spans(text=text, start=start, end=end, first_text=first_text, first_start=first_start)


class LineCounter:
    """Counts in how many texts each line stands, fed in batches; holds about 20 bytes a different line.

    A line counts without the white space around it, once a text, and only with `min_bytes` bytes or more.
    """

    def __init__(self, *, min_bytes: int = 20, threads: int | None = None) -> None:
        if min_bytes < 1:
            raise InputError(f"min_bytes is {min_bytes}; use 1 or more")
        self._counter = rust.data.LineCounter(min_bytes)
        self._threads = usable_cores() if threads is None else max(1, threads)

    def add(self, texts: Texts) -> None:
        """Count the lines of these texts."""
        try:
            self._counter.add(hand_over(texts), self._threads)
        except (ValueError, TypeError) as error:
            raise InputError(f"cannot count lines: {error}") from error

    def finish(self, *, more_than: int) -> int:
        """Forget the lines that stand in `more_than` texts or fewer; returns how many different ones are left."""
        if not 1 <= more_than < 2**32:
            raise InputError(f"more_than is {more_than}; use 1 or more")
        left: int = self._counter.keep_repeated(more_than)
        return left

    def find(self, texts: Texts, *, more_than: int) -> FrequentLines:
        """The lines of these texts that stand in more than `more_than` of the texts counted."""
        text, start, end, counts = self._counter.frequent(hand_over(texts), more_than)
        return FrequentLines(text=text, start=start, end=end, texts=counts)


def frequent_lines(
    texts: Texts, *, more_than: int = 10, min_bytes: int = 20, threads: int | None = None
) -> FrequentLines:
    """Find the lines that stand in more than `more_than` texts: licence headers, blocks of imports, menus of pages."""
    counter = LineCounter(min_bytes=min_bytes, threads=threads)
    counter.add(texts)
    counter.finish(more_than=more_than)
    return counter.find(texts, more_than=more_than)


def cut(texts: Texts, found: Places) -> list[str] | list[bytes]:
    """The texts without what was found in them; str where the first text is str, else bytes."""
    try:
        left: list[bytes] = rust.data.cut(hand_over(texts), found.text, found.start, found.end)
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot cut: {error}") from error
    if _is_text(texts):
        return [text.decode() for text in left]
    return left


def _is_text(texts: Texts) -> bool:
    kind = getattr(texts, "type", None)
    if kind is not None:
        return "string" in str(kind)
    return len(texts) > 0 and isinstance(texts[0], str)
