"""Floor 5, guard: what must not go in or come out, as a pure function on text.

`check` finds, `refusal` says in one sentence which rule spoke; what then happens is the caller's business. Regular
expressions only: no model, no torch. Going in, only secrets matter: a person may ask about bad code, paste it, and have
it mended. Coming out, code that harms is found too, but not where the same line warns of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from highrise.align.guard_rules import RULES, Rule

__all__ = ["Direction", "Finding", "Watch", "check", "refusal"]

Direction = Literal["in", "out"]

_WARNING = re.compile(
    r"\b(?:never|don'?t|do\s+not|must\s+not|should\s+not|avoid|dangerous|unsafe|insecure|vulnerable|instead\s+of|warning)\b",
    re.IGNORECASE,
)


class Finding(msgspec.Struct, frozen=True):
    """One place of a text that a rule speaks against; `start` and `end` count characters."""

    name: str
    message: str
    start: int
    end: int


def check(text: str, *, direction: Direction) -> list[Finding]:
    """Everything in `text` that a rule for `direction` speaks against, in order of place; an empty list lets it pass.

    `direction` is "in" for what a person or a tool sends to the model, "out" for what the model answers. A place that
    two rules of one name cover is reported once.
    """
    found: list[Finding] = []
    for rule in RULES:
        if direction not in rule.directions:
            continue
        for start, end in _places(rule, text):
            if not any(f.name == rule.name and f.start < end and start < f.end for f in found):
                found.append(Finding(rule.name, rule.message, start, end))
    return sorted(found, key=lambda finding: (finding.start, finding.end))


def refusal(finding: Finding) -> str:
    """The sentence for the person: which rule, and why. It never repeats what was found (that may be a secret)."""
    return f"Refused by the guardrail '{finding.name}': {finding.message}."


class Watch:
    """`check` for a stream: push each piece as it comes, and stop the stream at the first finding.

    Keeps the last `window` characters, so a match may span any number of pieces up to that length.
    """

    def __init__(self, *, direction: Direction = "out", window: int = 2000) -> None:
        self._direction: Direction = direction
        self._window = window
        self._text = ""
        self._before = 0

    def push(self, piece: str) -> Finding | None:
        """The first finding in what came so far (places count from the start of the stream), or None."""
        self._text += piece
        cut = len(self._text) - self._window - len(piece)
        if cut > 0:
            newline = self._text.find("\n", cut)
            cut = cut if newline < 0 or newline - cut > 200 else newline + 1
            self._text, self._before = self._text[cut:], self._before + cut
        found = check(self._text, direction=self._direction)
        if not found:
            return None
        first = found[0]
        return Finding(first.name, first.message, first.start + self._before, first.end + self._before)


def _places(rule: Rule, text: str) -> Iterator[tuple[int, int]]:
    if rule.hint is not None and rule.hint.search(text) is None:
        return
    for match in rule.pattern.finditer(text):
        if rule.unless is not None and rule.unless.search(match[0]):
            continue
        if rule.warned and _WARNING.search(text, text.rfind("\n", 0, match.start()) + 1, match.start()):
            continue
        yield match.start(), match.end()
