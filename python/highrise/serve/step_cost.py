"""Floor 6, step cost: what a step of so many tokens takes on this machine, learnt from the steps that were taken.

Machines differ by ten times and other programs come and go, so nothing here is a constant. Knows no scheduler.
"""

from __future__ import annotations

__all__ = ["PromptCost", "StepCost"]


class StepCost:
    """Seconds of a step as `fixed + a_token * tokens`, fitted to the steps that were seen, older ones fading."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w")

    FADING = 0.98

    def __init__(self) -> None:
        # Until steps were seen: a second token costs a seventh of the first, as int4 weights on two cores did.
        self._w, self._n, self._t, self._nn, self._nt = 2.0, 10.0, 2 * 6.0 + 10.0, 82.0, 6 * 10.0 + 82.0
        self._t, self._nt = self._t * 1e-3, self._nt * 1e-3

    def see(self, num_tokens: int, seconds: float) -> None:
        """Note a step of so many tokens."""
        keep = self.FADING
        self._w = keep * self._w + 1
        self._n = keep * self._n + num_tokens
        self._t = keep * self._t + seconds
        self._nn = keep * self._nn + num_tokens * num_tokens
        self._nt = keep * self._nt + num_tokens * seconds

    def seconds(self, num_tokens: int) -> float:
        """Expected seconds of a step; never less for more tokens."""
        spread = self._w * self._nn - self._n * self._n
        slope = max((self._w * self._nt - self._n * self._t) / spread, 0.0) if spread > 1e-9 else 0.0
        fixed = max((self._t - slope * self._n) / self._w, 0.0)
        return fixed + slope * num_tokens


class PromptCost:
    """Seconds a token in steps of many tokens; the slower of the recent ones counts, so that a bound holds."""

    __slots__ = ("_seconds",)

    LEAST = 16
    """Smaller steps say little about prompts."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def see(self, num_tokens: int, seconds: float) -> None:
        """Note a step of so many tokens."""
        if num_tokens < self.LEAST:
            return
        found = seconds / num_tokens
        share = 0.5 if found > self._seconds else 0.1
        self._seconds = found if self._seconds == 0.0 else self._seconds + share * (found - self._seconds)

    def tokens_in(self, seconds: float, *, most: int) -> int:
        """Tokens that fit into so many seconds, at most `most`, which is the answer while nothing is known."""
        return most if self._seconds == 0.0 else max(1, min(most, int(seconds / self._seconds)))
