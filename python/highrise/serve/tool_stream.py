"""Floor 6, tool stream: tells text from tool calls while a model is still writing.

Text flows on at once until something looks like the beginning of a call; from there it is held back until the call is
whole. Which words make a call is the prompt format's knowledge (`parse`), not this file's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["ParsedCall", "ToolStream"]

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"


class ParsedCall(Protocol):
    """A call as the prompt format reads it."""

    @property
    def name(self) -> str:
        """The function's name."""

    @property
    def arguments_json(self) -> str:
        """Its arguments as JSON text."""


class ToolStream:
    """Feed it text with `push`; it gives back text that is only text, and calls that are whole.

    `forced` is what the prompt already says in the model's name when a call is required.
    """

    def __init__(
        self, parse: Callable[[str], tuple[str, Sequence[ParsedCall]]], *, forced: str = "", only_first: bool = False
    ) -> None:
        self._parse = parse
        self._held = forced
        self._forced = bool(forced)
        self._text_seen = False
        self._after_call = False
        self._only_first = only_first
        self.num_calls = 0

    def push(self, text: str) -> tuple[str, list[ParsedCall]]:
        """Take `text`; return what may be shown now and the calls that became whole."""
        self._held += text
        shown = ""
        calls: list[ParsedCall] = []
        while True:
            if self._after_call:  # the line ends behind a call belong to it, in whichever piece they come
                self._held = self._held.lstrip("\n")
                self._after_call = not self._held
            start = self._held.find(_OPEN)
            if start < 0:
                shown += self._release()
                break
            shown += self._take_text(self._held[:start])
            self._held = self._held[start:]
            end = self._held.find(_CLOSE)
            if end < 0:
                break
            end += len(_CLOSE)
            rest, found = self._read(self._held[:end])
            shown += rest if not found else ""
            calls.extend(self._count(found))
            self._held = self._held[end:]
            self._after_call = True
        return shown, calls

    def finish(self) -> tuple[str, list[ParsedCall]]:
        """The end of the text: whatever is held back is either a call or text after all."""
        held, self._held = self._held, ""
        if not held.strip():
            return "", []
        text, found = self._read(held + _CLOSE if held.startswith(_OPEN) else held)
        if not found:
            return held, []
        return text, self._count(found)

    def _read(self, text: str) -> tuple[str, Sequence[ParsedCall]]:
        """Parse; a call that was begun for the model may miss the braces that it did not open itself."""
        rest, found = self._parse(text)
        if not found and self._forced and text.endswith(_CLOSE):
            for braces in ("}", "}}"):
                rest, found = self._parse(text.removesuffix(_CLOSE) + braces + _CLOSE)
                if found:
                    break
        return rest, found

    def _count(self, found: Sequence[ParsedCall]) -> list[ParsedCall]:
        kept = list(found)
        if self._only_first:
            kept = kept[: max(0, 1 - self.num_calls)]
        self.num_calls += len(kept)
        return kept

    def _take_text(self, text: str) -> str:
        self._text_seen = self._text_seen or bool(text.strip())
        return text if self._text_seen else ""

    def _release(self) -> str:
        """Text at the front of what is held that can no longer become a call."""
        held = self._held
        if not self._text_seen and (not held.strip() or held.lstrip()[0] in "{[`"):
            return ""  # some models write the bare JSON of a call as their whole answer
        keep = next((size for size in range(len(_OPEN) - 1, 0, -1) if held.endswith(_OPEN[:size])), 0)
        text = held[: len(held) - keep]
        if not self._text_seen and not text.strip():
            return ""  # white space before the first word: shown with it, or dropped before a call
        self._held = held[len(held) - keep :]
        return self._take_text(text)
