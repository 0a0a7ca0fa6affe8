"""Floor 4, infill: where a text is cut into prefix, middle and suffix, as an editor's cursor would cut it.

Cuts fall between characters, before anything is encoded: a cut between tokens would teach a boundary that no cursor
respects. Middles are what ghost text is asked for: the rest of a line, some whole lines, or any span. Knows no tokens.
"""

from __future__ import annotations

import bisect
import random
from typing import NamedTuple

__all__ = ["Cut", "cut_infill", "pieces"]


class Cut(NamedTuple):
    """A text in three parts; put together they are the text."""

    prefix: str
    middle: str
    suffix: str


def cut_infill(text: str, draw: random.Random, *, longest: int = 400) -> Cut | None:
    """Cut a middle of 1 to `longest` characters, not blank, out of `text`; None when ten tries find none.

    Half of the middles run from inside a line to its end, three in ten over one to six whole lines, the rest are spans.
    """
    if len(text) < 8:
        return None
    for _ in range(10):
        kind = draw.random()
        start = draw.randrange(len(text))
        if kind < 0.5:
            end = _line_end(text, start)
        elif kind < 0.8:
            start = text.rfind("\n", 0, start) + 1
            start += len(text[start:]) - len(text[start:].lstrip(" \t"))
            end = start
            for _ in range(draw.randint(1, 6)):
                end = _line_end(text, end + 1)
        else:
            end = start + draw.randint(2, longest)
        end = min(end, start + longest, len(text))
        if text[start:end].strip():
            return Cut(text[:start], text[start:end], text[end:])
    return None


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def pieces(text: str, longest: int) -> list[str]:
    """`text` in pieces of at most `longest` characters, cut before a line where possible; joined they are the text."""
    starts = [0]
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    while len(text) - starts[-1] > longest:
        limit = starts[-1] + longest
        cut = lines[bisect.bisect_right(lines, limit) - 1]
        starts.append(cut if cut > starts[-1] else limit)
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
