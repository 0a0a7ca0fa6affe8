"""Floor 3, prompt_guard: keeps what a user's text spells apart from what a template writes. Knows no template."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import msgspec

__all__ = ["Guard"]


class Guard:
    """Keeps special tokens that a user's text spells apart from those the template writes.

    A character that occurs nowhere (a Unicode noncharacter) is put behind the first character of each spelled token
    before the template runs, and taken out again once the template's own tokens have been cut out.
    """

    def __init__(self, specials: Mapping[str, int], pattern: re.Pattern[str], content: object) -> None:
        self._specials = specials
        self._pattern = pattern
        spelled = json.dumps(msgspec.to_builtins(content), ensure_ascii=False)
        free = (chr(code) for code in range(0xFDD0, 0xFDF0))
        self._mark = next((mark for mark in free if mark not in spelled), "\ufdef")

    def hide(self, value: object) -> object:
        """The same value with every spelled token broken."""
        if isinstance(value, str):
            # Again, because a broken token may have hidden the start of another.
            while self._pattern.search(value):
                value = self._pattern.sub(lambda found: found[0][0] + self._mark + found[0][1:], value)
            return value
        if isinstance(value, Mapping):
            return {key: self.hide(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.hide(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """Undo `hide`."""
        return text.replace(self._mark, "")

    def split(self, text: str, offset: int) -> Iterator[tuple[int, str, int | None]]:
        """Position (plus `offset`), text and id of the template's special tokens and of what lies between (id None)."""
        at = 0
        for found in self._pattern.finditer(text):
            if found.start() > at:
                yield offset + at, text[at : found.start()], None
            yield offset + found.start(), found[0], self._specials[found[0]]
            at = found.end()
        if at < len(text):
            yield offset + at, text[at:], None
