"""Floor 5, outcome: what one method did, in numbers, and whether that is worth keeping. Knows nothing of torch."""

from __future__ import annotations

import msgspec

__all__ = ["Judgement", "KindOutcome", "Outcome", "Skipped", "judge"]

_TOLERANCE = 0.01


class KindOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Held-out samples of one kind: their mean loss before and after, and how much was looked at."""

    before: float
    after: float
    num_targets: int
    num_samples: int
    judged: bool
    """Whether the kind takes part in the decision; the others are shown for information."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What a method did: held-out losses (mean over what is judged) before and after, steps, tokens, seconds."""

    before: float
    after: float
    kinds: dict[str, KindOutcome]
    num_rows: int
    """Held-out rows that were looked at, both times the same."""
    steps: int
    tokens: int
    planned_tokens: int
    """What the measured warm-up steps said would fit into the budget."""
    seconds: float
    train_seconds: float


class Skipped(msgspec.Struct, frozen=True, tag="skipped"):
    """Why a method did nothing."""

    reason: str


class Judgement(msgspec.Struct, frozen=True):
    """Whether an outcome is kept, and the reason in half a sentence."""

    kept: bool
    reason: str


def judge(outcome: Outcome) -> Judgement:
    """Keep what lowers the held-out loss and raises that of no judged kind by over 1 %, of infill code not at all."""
    if not outcome.num_rows or not outcome.steps:
        return Judgement(False, "nothing was held out, or no step fitted into the budget")
    if not outcome.after < outcome.before:
        return Judgement(False, "the loss did not fall, so the weights stay as they were")
    for name, kind in outcome.kinds.items():
        allowed = kind.before if name == "infill code" else kind.before * (1 + _TOLERANCE)
        if kind.judged and kind.after > allowed:
            return Judgement(False, f"the loss on {name} rose, so the weights stay as they were")
    return Judgement(True, "the loss fell, so the change is kept")
