"""Floor 6, floating: computed pieces of prompts that may be used again at another place. Knows no model and no text.

In a fill-in the text after the cursor stands behind a text that grows with every key. Its keys (of attention) can be
turned on to their new positions and its values kept, so that a letter costs a step of few tokens. That is an
approximation: the states still saw the text before as it was. So a piece is used again only while the text before it
differs by at most `max_drift` tokens; then it is computed anew. `docs/log/serve-ghost-text.md` has what it costs.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable

from highrise.serve.sequence import Sequence

__all__ = ["FloatingPieces", "Piece"]


@dataclasses.dataclass(slots=True, frozen=True)
class Piece:
    """`tokens[start:end]` of a sequence that is over, still held under `handle`."""

    handle: int
    tokens: list[int]
    start: int
    end: int


class FloatingPieces:
    """The most recently used pieces, at most `limit` of them; `release` gives a handle back to the allocator."""

    def __init__(self, release: Callable[[int], None], *, limit: int = 4, max_drift: int = 64) -> None:
        self.limit = limit
        self.max_drift = max_drift
        """Tokens by which the text before a piece may differ from what it was computed after."""
        self._release = release
        self._pieces: OrderedDict[tuple[int, tuple[int, ...]], Piece] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pieces)

    def find(self, sequence: Sequence) -> Piece | None:
        """The piece that the sequence may take its floating span from."""
        span = sequence.request.floating
        if span is None:
            return None
        key = self._key(sequence)
        piece = self._pieces.get(key)
        if piece is None or sequence.renews:
            return None
        sequence.drift = self._drift(piece, sequence.tokens, span[0])
        if sequence.drift > self.max_drift:
            return None
        self._pieces.move_to_end(key)
        return piece

    def is_stale(self, sequence: Sequence) -> bool:
        """Whether what fills the hole of `sequence` should be computed anew before the next keys come."""
        return sequence.hole is not None and 2 * sequence.drift > self.max_drift

    def keep(self, sequence: Sequence) -> bool:
        """Take over the pages of a sequence that is over, when its span was computed and not itself taken over."""
        span = sequence.request.floating
        if span is None or sequence.handle is None or sequence.hole is not None or sequence.num_computed < span[1]:
            return False
        key = self._key(sequence)
        if key in self._pieces:
            self._release(self._pieces.pop(key).handle)
        self._pieces[key] = Piece(sequence.handle, sequence.tokens, *span)
        while len(self._pieces) > self.limit:
            self.drop_oldest()
        return True

    def drop_oldest(self) -> bool:
        """Give back the pages of the piece that was not used for longest; False when there is none."""
        if not self._pieces:
            return False
        _, piece = self._pieces.popitem(last=False)
        self._release(piece.handle)
        return True

    def clear(self) -> None:
        """Give back all pages."""
        while self.drop_oldest():
            pass

    @staticmethod
    def _key(sequence: Sequence) -> tuple[int, tuple[int, ...]]:
        start, end = sequence.request.floating or (0, 0)
        return sequence.salt, tuple(sequence.tokens[start:end])

    @staticmethod
    def _drift(piece: Piece, tokens: list[int], start: int) -> int:
        """Tokens before the piece, then or now, that the other one does not have."""
        longest, low = min(piece.start, start), 0
        step = 256
        while low < longest and piece.tokens[low : low + step] == tokens[low : low + step] and low + step <= longest:
            low += step
        while low < longest and piece.tokens[low] == tokens[low]:
            low += 1
        return max(piece.start, start) - low
