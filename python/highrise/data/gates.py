"""Floor 2, gates: which of many patterns are worth trying on a text, found natively.

A gate matches wherever its pattern does, and here and there where it does not: it is the pattern without what looks
around, without word boundaries and upper bounds. White space and digits are those of ASCII. Knows nothing of what a
pattern is for.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from highrise.core.native import rust

__all__ = ["Gates", "gate_of"]

_LOOK = re.compile(r"\(\?<?[!=][^()]*\)|\\[bB]|\(\?P<\w+>")
_BOUNDS = re.compile(r"(?<!\\)\{(\d+),\d+\}")


def gate_of(pattern: re.Pattern[str]) -> str:
    """The gate of a pattern that has no groups inside what looks around, no backreferences and no verbose flag."""
    plain = _BOUNDS.sub(r"{\1,}", _LOOK.sub(lambda match: "(?:" if match[0].startswith("(?P") else "", pattern.pattern))
    return f"(?i){plain}" if pattern.flags & re.IGNORECASE and not plain.startswith("(?i)") else plain


class Gates:
    """Compiled on first use, once a process.

    A gate is led by the literals that its pattern must hold; one that has none may come as (hint, ..., pattern): it is
    tried only where one of the hints matches. Few short literals a hint are searched many times faster than many.
    """

    def __init__(self, patterns: Iterable[str | re.Pattern[str] | tuple[str, ...]]) -> None:
        self._patterns = [_with_hints(pattern) for pattern in patterns]

    @functools.cached_property
    def _compiled(self) -> Any:
        return rust.data.Gates(self._patterns)

    def open(self, text: str) -> list[int]:
        """Numbers of the patterns that may match, in order."""
        found: list[int] = self._compiled.open(text)
        return found


def _with_hints(pattern: str | re.Pattern[str] | tuple[str, ...]) -> tuple[list[str], str]:
    if isinstance(pattern, tuple):
        return list(pattern[:-1]), pattern[-1]
    return [], pattern if isinstance(pattern, str) else gate_of(pattern)
