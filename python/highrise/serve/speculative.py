"""Floor 6, speculative: guesses the next tokens from what was said before, and how many guesses pay. Knows no model.

Code repeats itself: after three tokens that stood in the prompt or the answer before, what followed then is likely to
follow now (prompt look-up, Saxena 2023). The guesses go into the step with the token that is due; each is kept when the
token chosen at its place, by the request's own rule and generator, is the guess. So the tokens are those of a plain
decoding, greedy or with a seed. Where nothing is found a small model may guess (`serve/draft_model.py`).
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from highrise.serve.step_cost import StepCost

__all__ = ["DraftLength", "Lookup"]

_GRAM = 3
"""Tokens that must agree; with two, most guesses of code were wrong."""


class Lookup:
    """Where each three tokens of one sequence stood last."""

    __slots__ = ("_after", "_seen")

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._seen = _GRAM

    def propose(self, tokens: Items[int], limit: int) -> list[int]:
        """At most `limit` guesses for what follows `tokens`, which only ever grows from call to call."""
        for end in range(self._seen, len(tokens)):
            self._after[tuple(tokens[end - _GRAM : end])] = end
        self._seen = max(self._seen, len(tokens))
        place = self._after.get(tuple(tokens[-_GRAM:]))
        if place is None:
            return []
        period = len(tokens) - place  # past the end it goes on as it went round
        return [tokens[place + ahead % period] for ahead in range(limit)]


class DraftLength:
    """How many guesses of one sequence to try: the number with the most expected tokens a second."""

    __slots__ = ("_rate",)

    MOST = 8
    FADING = 0.8

    def __init__(self) -> None:
        self._rate = 0.6

    def best(self, cost: StepCost, num_others: int, *, guess_seconds: float = 0.0) -> int:
        """Guesses to try in a step of `num_others` tokens besides, each after `guess_seconds`; 0 when none pays."""
        rate = min(self._rate, 0.99)
        best, speed = 0, 1 / max(cost.seconds(num_others + 1), 1e-9)
        expected = 1.0
        for count in range(1, self.MOST + 1):
            expected += rate**count
            found = expected / max(cost.seconds(num_others + 1 + count) + guess_seconds * count, 1e-9)
            if found > speed:
                best, speed = count, found
        return best

    def see(self, num_right: int, num_tried: int) -> None:
        """Learn from a step; a length of 0 is tried again after a while, because rates recover."""
        for index in range(num_tried):
            if index > num_right:
                break
            self._rate = self.FADING * self._rate + (1 - self.FADING) * (index < num_right)

    def rest(self) -> None:
        """A guess was there and not tried: forget a little of the bad luck."""
        self._rate += 0.02 * (0.6 - self._rate)
