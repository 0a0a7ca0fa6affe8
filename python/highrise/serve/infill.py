"""Floor 6, infill: how much of a file around the cursor fits into a prompt, and where a filled-in answer must end.

The window keeps the end of the prefix, the start of the suffix and what is left for other files. Its start moves in
steps of lines, not with every key, so that the engine's prefix cache hits while someone types. Knows no special
tokens: `encode/prompt.py` makes the prompt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

__all__ = ["InfillStop", "Window", "fit", "keep_end", "keep_start"]

_STEP = 16  # lines by which the window's start moves
_ROUND = 64  # tokens by which the suffix gives way to a prefix that grows
_CHARACTERS = 12  # no more than so many characters a token are looked at, so that a huge file costs no more


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What of a file and of its neighbours goes into the prompt."""

    prefix: str
    suffix: str
    extra: tuple[tuple[str, str], ...]
    truncated: bool


def keep_end(text: str, limit: int, count: Callable[[str], int]) -> str:
    """The end of `text` in at most `limit` tokens, from the start of a line where possible."""
    if limit <= 0:
        return ""
    if len(text) <= limit * _CHARACTERS and count(text) <= limit:
        return text
    lines = text.splitlines(keepends=True)
    first, used = len(lines), 0
    while first > 0:
        size = count(lines[first - 1][-limit * _CHARACTERS :])
        if used + size > limit:
            break
        used += size
        first -= 1
    if first == len(lines):  # one line alone is too long: cut inside it
        return _cut(lines[-1], limit, count, from_end=True)
    stepped = -(-first // _STEP) * _STEP
    kept = lines[stepped:] if stepped < len(lines) - _STEP else lines[first:]
    return "".join(kept)


def keep_start(text: str, limit: int, count: Callable[[str], int]) -> str:
    """The start of `text` in at most `limit` tokens, to the end of a line where possible."""
    if limit <= 0:
        return ""
    if len(text) <= limit * _CHARACTERS and count(text) <= limit:
        return text
    kept, used = [], 0
    for line in text.splitlines(keepends=True):
        size = count(line[: limit * _CHARACTERS])
        if used + size > limit:
            break
        used += size
        kept.append(line)
    return "".join(kept) or _cut(text.splitlines(keepends=True)[0], limit, count, from_end=False)


def _cut(line: str, limit: int, count: Callable[[str], int], *, from_end: bool) -> str:
    low, high = 0, min(len(line), limit * _CHARACTERS)
    while low < high:
        middle = (low + high + 1) // 2
        part = line[-middle:] if from_end else line[:middle]
        low, high = (middle, high) if count(part) <= limit else (low, middle - 1)
    return line[len(line) - low :] if from_end else line[:low]


def fit(
    prefix: str,
    suffix: str,
    extra: Sequence[tuple[str, str]],
    *,
    budget: int,
    count: Callable[[str], int],
    prefix_share: float = 0.75,
) -> Window:
    """Prefix, suffix and extra pieces in at most `budget` tokens: `prefix_share` of it for the prefix, the rest for the
    suffix, unless one needs less; extra pieces fill what is left, first come first served, whole or not at all.

    What a short prefix leaves to the suffix changes in steps, so that the suffix stays the same while the prefix grows.
    """
    suffix_kept = keep_start(suffix, budget - int(budget * prefix_share), count)
    prefix_kept = keep_end(prefix, budget - count(suffix_kept), count)
    if len(suffix_kept) < len(suffix):
        room = budget - count(prefix_kept)
        if len(suffix) > room * _CHARACTERS or count(suffix) > room:
            room = room // _ROUND * _ROUND
        suffix_kept = max(suffix_kept, keep_start(suffix, room, count), key=len)
    left = budget - count(prefix_kept) - count(suffix_kept)
    pieces = []
    for name, text in extra:
        size = count(text) + count(name) + 4
        if size <= left:
            left -= size
            pieces.append((name, text))
    truncated = len(prefix_kept) < len(prefix) or len(suffix_kept) < len(suffix) or len(pieces) < len(extra)
    return Window(prefix=prefix_kept, suffix=suffix_kept, extra=tuple(pieces), truncated=truncated)


class InfillStop:
    """llama.cpp's two ways to end an infill: a line less indented than `indent`, and a time limit after a newline."""

    def __init__(self, *, indent: int = 0, milliseconds: float | None = None) -> None:
        self._indent = indent
        self._limit = None if not milliseconds else milliseconds / 1000
        self._deadline: float | None = None
        self._text = ""
        self.ended = ""

    def push(self, text: str) -> str:
        """Take new text, return the part of it that belongs to the answer; `ended` then tells whether to stop."""
        if self._limit is not None:
            now = time.monotonic()
            if self._deadline is None:
                self._deadline = now + self._limit
            elif now > self._deadline and "\n" in self._text + text:
                self.ended = "limit"
        if self._indent <= 0:
            self._text += text
            return text
        before = len(self._text)
        self._text += text
        position = self._text.rfind("\n", 0, before) if before else -1
        while (position := self._text.find("\n", max(position, 0) if position < 0 else position)) >= 0:
            line = self._text[position + 1 :].split("\n", 1)[0]
            stripped = line.lstrip(" \t")
            if stripped and len(line) - len(stripped) < self._indent:
                self.ended = "indent"
                kept = self._text[:position]
                self._text = kept
                return kept[before:]
            position += 1
        return text
