"""Floor 0, progress: one line on stderr with what is done, the rate and the time left.

On a terminal the line is redrawn, elsewhere a new line is written every ten seconds. Knows nothing of what is counted.
"""

from __future__ import annotations

import sys
import time
from typing import TextIO

__all__ = ["Progress", "human_bytes", "human_seconds", "say"]


def human_bytes(count: float) -> str:
    """A byte count with a decimal unit: 1234567 -> '1.2 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """A duration in at most two units: 75 -> '1m15s'."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{left:02d}s" if minutes else f"{left}s"


def say(text: str) -> None:
    """One line for a person, on stderr, at once."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Counts work and tells about it; use as a context manager.

    `unit` is what is counted ("files", "tokens", "B" for bytes); `total` may be unknown (None).
    """

    def __init__(self, label: str, *, unit: str, total: float | None = None, stream: TextIO | None = None) -> None:
        self.label = label
        self.unit = unit
        self.total = total
        self.done = 0.0
        self.note = ""
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._started = time.monotonic()
        self._shown = self._started
        self._interval = 0.1 if self._live else 10.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def advance(self, count: float = 1, *, note: str = "") -> None:
        """Add `count` to what is done; `note` (a loss, a file name) stands at the end of the line."""
        self.done += count
        if note:
            self.note = note
        now = time.monotonic()
        if now - self._shown >= self._interval:
            self._shown = now
            text = self.line()
            self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
            self._stream.flush()

    def line(self) -> str:
        """The line as it stands now."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.done / seconds
        parts = [f"{self.label}: {self._amount(self.done)}"]
        if self.total:
            parts[0] += f" of {self._amount(self.total)} ({min(100.0, 100 * self.done / self.total):.0f} %)"
        parts.append(f"{self._amount(rate)}/s")
        if self.total and rate > 0 and self.done < self.total:
            parts.append(f"{human_seconds((self.total - self.done) / rate)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    def _amount(self, count: float) -> str:
        if self.unit == "B":
            return human_bytes(count)
        return f"{count:,.0f} {self.unit}" if count >= 10 else f"{count:.3g} {self.unit}"
