"""Floor 5, pace: how a time budget is divided between steps and looks, from what has been measured so far.

The first step pays for everything that is done once, so the second is the first that counts; later ones correct it,
because a machine slows down and speeds up. Knows no model, no data and no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Pace"]

_LOOK_SHARE = 0.12
"""Most of the budget that one look may take."""
_FORWARD_SHARE = 0.4
"""A row that is only looked at costs about this share of one that is learnt from, until a look was measured."""
_NEW_WEIGHT = 0.4


class Pace:
    """The clock of one method. Times are seconds of its budget; `clock` may be replaced (tests)."""

    def __init__(self, *, budget: float, num_rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._num_rows, self._clock = budget, num_rows, clock
        self._started = clock()
        self._steps = 0
        self._tokens_per_step = 0.0
        self._step_seconds = 0.0
        self._look_began = 0.0
        self._look_seconds: float | None = None
        self._step_seconds_then = 0.0
        self._rows = 0
        self._trained_from = 0.0

    def state(self) -> dict[str, Any]:
        """Everything, as plain numbers, with the seconds that are gone."""
        numbers = {name: value for name, value in vars(self).items() if name not in ("_clock", "_started")}
        return {**numbers, "gone": self.gone()}

    @classmethod
    def restored(cls, state: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> Pace:
        """The pace of an earlier process; the time between the two does not count."""
        made = cls(budget=state["_budget"], num_rows=state["_num_rows"], clock=clock)
        vars(made).update({name: value for name, value in state.items() if name != "gone"})
        made._started = clock() - state["gone"]
        return made

    def gone(self) -> float:
        """Seconds of the budget that are gone."""
        return self._clock() - self._started

    @property
    def measured(self) -> bool:
        """Whether a step that counts was measured, or there is no time for a second one."""
        return self._steps >= 2 or (self._steps == 1 and self.gone() + self._step_seconds > 0.5 * self._budget)

    def stepped(self, num_tokens: int, seconds: float) -> None:
        """A step of `num_tokens` took `seconds`."""
        self._steps += 1
        if self._steps <= 2:
            self._tokens_per_step, self._step_seconds = float(num_tokens), seconds
        else:
            self._tokens_per_step += _NEW_WEIGHT * (num_tokens - self._tokens_per_step)
            self._step_seconds += _NEW_WEIGHT * (seconds - self._step_seconds)

    def looked(self, rows: int) -> None:
        """The first look, at `rows` rows, has just ended; it began when `look_until` was asked."""
        self._rows = rows
        self._look_seconds = self.gone() - self._look_began
        self._step_seconds_then = self._step_seconds
        self._trained_from = self.gone()

    def look_until(self) -> float:
        """The second of the budget at which the first look, which begins now, has to end."""
        self._look_began = self.gone()
        return self._look_began + min(_LOOK_SHARE * self._budget, 0.3 * max(0.0, self._budget - self._look_began))

    def tokens_per_second(self) -> float:
        """At the pace of the last steps; 0 before the first."""
        return self._tokens_per_step / self._step_seconds if self._step_seconds else 0.0

    def tokens_left(self) -> int:
        """Tokens that still fit, with what the looks will take set aside."""
        left = self._budget - self.gone() - self._reserve() - (0 if self._look_seconds is not None else self._reserve())
        return int(max(0.0, left) * self.tokens_per_second())

    def another_step(self) -> bool:
        """Whether one more step fits before the second look has to begin; the first one always does."""
        if self._steps == 0:
            return True
        return self.gone() + 0.5 * self._step_seconds < self._budget - self._reserve()

    def share_gone(self) -> float:
        """How much of the time for steps is gone, between 0 and 1."""
        end = self._budget - self._reserve()
        return min(1.0, max(0.0, (self.gone() - self._trained_from) / max(1e-9, end - self._trained_from)))

    def _reserve(self) -> float:
        """Seconds that the second look will take: as long as the first, corrected by how steps have changed since."""
        if self._look_seconds is None:
            return min(_LOOK_SHARE * self._budget, _FORWARD_SHARE * self._num_rows * self._step_seconds)
        slower = self._step_seconds / self._step_seconds_then if self._step_seconds_then else 1.0
        return self._look_seconds * max(0.5, slower)
