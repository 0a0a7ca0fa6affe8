"""Floor 6, begun: holds an answer to the text it must begin with (token healing). Knows no model.

Text that ends inside a word ends in tokens that the model has rarely seen there. So the begun word is left out of the
prompt and the answer is made to spell it: each token must continue the rest of it or reach beyond (Lundberg, guidance).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["Begun", "TokenIndex"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]


class TokenIndex:
    """Token ids in the order of their bytes; `token` gives the bytes of an id, empty for one that is no text."""

    def __init__(self, token: Callable[[int], bytes], vocab_size: int) -> None:
        texts = sorted((text, id) for id in range(vocab_size) if (text := token(id)))
        self._texts = [text for text, _ in texts]
        self._ids = np.array([id for _, id in texts], dtype=np.intp)
        self.bytes = token

    def beginning_with(self, start: bytes) -> Ids:
        """Ids of the tokens whose bytes begin with `start`."""
        first = bisect.bisect_left(self._texts, start)
        last = bisect.bisect_left(self._texts, start + b"\xff" * 8, lo=first)
        return self._ids[first:last]

    def equal_to(self, text: bytes) -> Ids:
        """Ids of the tokens with exactly these bytes."""
        first = bisect.bisect_left(self._texts, text)
        return self._ids[first : bisect.bisect_right(self._texts, text, lo=first)]


class Begun:
    """A constraint (`serve/constraint.py`) that lets only such tokens pass as spell `text`, and then all."""

    finished = False
    failure = ""

    def __init__(self, text: str, index: TokenIndex) -> None:
        self._text = text
        self._rest = text.encode()
        self._index = index

    def allowed(self) -> Ids | None:
        """Tokens that spell a part of the rest, or it and more; None for all."""
        rest = self._rest
        if not rest:
            return None
        parts = [self._index.equal_to(rest[:size]) for size in range(1, len(rest))]
        found = np.concatenate([*parts, self._index.beginning_with(rest)])
        return found if len(found) else None

    def mask(self, logits_V: Floats) -> Floats:  # noqa: N803
        """The row with -inf at every other token; the row itself when all may come."""
        allowed = self.allowed()
        if allowed is None:
            return logits_V
        kept = np.full_like(logits_V, -np.inf)
        kept[allowed] = logits_V[allowed]
        return kept

    def accept(self, token: int) -> None:
        """What `token` spells is no longer wanted."""
        self._rest = self._rest[len(self._index.bytes(token)) :]

    def fresh(self) -> Begun:
        """Another one at the beginning."""
        return Begun(self._text, self._index)
