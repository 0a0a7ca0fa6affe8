"""Floor 2, lines: a pattern applied only to the lines where a cheap literal says that it may match.

A regular expression that tries every position of a long text costs more than all other filters together; `str.find`
does not. Knows nothing of what is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = ["sub_on_lines"]


def sub_on_lines(
    pattern: re.Pattern[str],
    replace: Callable[[re.Match[str]], str],
    text: str,
    hints: Sequence[str],
    *,
    lowered: str | None = None,
    following: int = 0,
) -> str:
    """`pattern.sub` on the lines that hold one of `hints` and on `following` lines after each.

    `lowered` is the text in lower case when the hints are to be found in any case; where lower case has another
    length, every line counts.
    """
    where = text if lowered is None else lowered
    if len(where) != len(text):
        return pattern.sub(replace, text)
    spans: list[tuple[int, int]] = []
    for hint in hints:
        at = where.find(hint)
        while at >= 0:
            begin, end = text.rfind("\n", 0, at) + 1, at
            for _ in range(following + 1):
                end = text.find("\n", end + 1) if end >= 0 else end
            end = len(text) if end < 0 else end
            spans.append((begin, end))
            at = where.find(hint, end)
    if not spans:
        return text
    spans.sort()
    pieces: list[str] = []
    done = 0
    begin, end = spans[0]
    for start, stop in [*spans[1:], (len(text) + 2, 0)]:
        if start <= end + 1:
            end = max(end, stop)
            continue
        pieces += (text[done:begin], pattern.sub(replace, text[begin:end]))
        done, begin, end = end, start, stop
    return "".join((*pieces, text[done:]))
