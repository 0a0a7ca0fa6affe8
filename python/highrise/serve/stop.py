"""Floor 6, stop: finds stop strings in streamed text and holds back what may become one. Knows nothing of tokens."""

from __future__ import annotations

__all__ = ["StopMatcher"]


class StopMatcher:
    """Passes text through until the earliest stop string; the longest possible beginning of one waits inside."""

    __slots__ = ("_held", "_stops")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, str | None]:
        """Text that is certain now, and the stop string that was met (text after it is dropped)."""
        if not self._stops:
            return text, None
        self._held += text
        found = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            place, stop = min(found, key=lambda pair: pair[0])
            text, self._held = self._held[:place], ""
            return text, stop
        keep = self._possible_beginning()
        certain = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return certain, None

    def finish(self) -> str:
        """What was held back, now that no more text will come."""
        text, self._held = self._held, ""
        return text

    def _possible_beginning(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(len(self._held), max(len(stop) for stop in self._stops) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
