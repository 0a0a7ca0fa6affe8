"""What is worth keeping, and that outcomes survive a checkpoint."""

from __future__ import annotations

import msgspec
import pytest

from highrise.align.outcome import KindOutcome, Outcome, Skipped, judge


def _outcome(after: float, *, code: float = 1.9, chat: float = 1.0, steps: int = 3, text: float = 3.0) -> Outcome:
    kinds = {
        name: KindOutcome(before=before, after=now, num_targets=10, num_samples=2, judged=judged)
        for name, before, now, judged in (
            ("infill code", 2.0, code, True),
            ("chat", 1.0, chat, True),
            ("code", 2.0, text, False),
        )
    }
    return Outcome(
        before=2.0,
        after=after,
        kinds=kinds,
        num_rows=2,
        steps=steps,
        tokens=30,
        planned_tokens=40,
        seconds=1.0,
        train_seconds=0.5,
    )


@pytest.mark.parametrize(
    ("outcome", "kept", "words"),
    [
        (_outcome(1.9), True, "the loss fell"),
        (_outcome(2.0), False, "did not fall"),
        (_outcome(float("nan")), False, "did not fall"),
        (_outcome(1.9, code=2.001), False, "infill code rose"),
        (_outcome(1.9, chat=1.005), True, "the loss fell"),
        (_outcome(1.9, chat=1.02), False, "chat rose"),
        (_outcome(1.9, steps=0), False, "no step"),
    ],
)
def test_judgement(outcome: Outcome, kept: bool, words: str) -> None:
    verdict = judge(outcome)
    assert verdict.kept == kept and words in verdict.reason


def test_both_survive_a_checkpoint() -> None:
    for value in (_outcome(1.5), Skipped("too slow")):
        assert msgspec.convert(msgspec.to_builtins(value), Outcome | Skipped) == value
