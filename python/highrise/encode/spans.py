"""Floor 3, spans: where tokens lie in a text. From bytes of its UTF-8 to characters, and where to cut it.

Knows nothing of vocabularies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Spans", "character_before", "to_characters"]

Spans = list[tuple[int, int]]
"""(start, end) of each token."""


def to_characters(text: str, spans: Sequence[tuple[int, int]]) -> Spans:
    """Bytes of the UTF-8 of `text` as characters of `text`; a token inside a character has that whole character."""
    if text.isascii():
        return list(spans)
    content = np.frombuffer(text.encode(), dtype=np.uint8)
    begins = np.zeros(len(content) + 1, dtype=np.int64)
    np.cumsum((content & 0xC0) != 0x80, out=begins[1:])
    ends = begins.tolist()
    starts_inside = ((content & 0xC0) == 0x80).tolist()
    starts_inside.append(False)
    return [(ends[start] - starts_inside[start], ends[end]) for start, end in spans]


def character_before(content: bytes, position: int) -> int:
    """The last place at or before `position` where a character begins, or the end of the text."""
    while 0 < position < len(content) and content[position] & 0xC0 == 0x80:
        position -= 1
    return position
