"""Floor 5, outcome: what one method did, in numbers. Knows nothing of torch."""

from __future__ import annotations

import msgspec

__all__ = ["Outcome"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a method did: held-out losses (mean) before and after, steps, tokens, seconds."""

    before: float
    after: float
    num_rows: int
    """Held-out rows that were looked at, both times the same."""
    steps: int
    tokens: int
    seconds: float
    train_seconds: float
