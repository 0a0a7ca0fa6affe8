"""Floor 6, engine pulse: tells a process that computes from one that hangs.

The engine's process counts its rounds in eight bytes that both processes map; a thread of the server looks at them.
Nothing is read from a channel for it, so a server that is busy, or whose loop is over, takes no engine for dead.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Callable

__all__ = ["IDLE_ROUND", "Pulse", "Watchdog"]

IDLE_ROUND = 0.5
"""Seconds after which a process without work counts a round all the same."""
_LOOKS = 8
"""A pulse that stood still at so many looks in a row has stopped. Looks are counted, not time: none is taken while the
machine sleeps, or while both processes are stopped."""
_SIZE = 8


class Pulse:
    """A count that is shared with another process by a file descriptor."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            with tempfile.TemporaryFile() as file:
                file.truncate(_SIZE)
                self.fd = os.dup(file.fileno())
        else:
            self.fd = fd
        self._map = mmap.mmap(self.fd, _SIZE)
        self._cell = memoryview(self._map).cast("Q")

    @property
    def count(self) -> int:
        """Rounds so far."""
        return self._cell[0]

    def beat(self) -> None:
        """One round more."""
        self._cell[0] += 1

    def close(self) -> None:
        """Unmap and close."""
        self._cell.release()
        self._map.close()
        os.close(self.fd)


class Watchdog:
    """Calls `stopped` once, from its own thread, when `pulse` has not moved for `seconds`; owns the pulse."""

    def __init__(self, pulse: Pulse, seconds: float, stopped: Callable[[], None]) -> None:
        self._pulse = pulse
        self._every = seconds / _LOOKS
        self._stopped = stopped
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, name="highrise-engine-pulse", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()
        self._pulse.close()

    def _look(self) -> None:
        last, still = self._pulse.count, 0
        while not self._closed.wait(self._every):
            count = self._pulse.count
            still = 0 if count != last else still + 1
            last = count
            if still == _LOOKS:
                self._stopped()
                return
