"""Floor 0, cores: how many this process may run on. Knows no control groups: those are `compute/machine.py`'s."""

from __future__ import annotations

import os

__all__ = ["MAX_THREADS", "usable_cores"]

MAX_THREADS = 1024
"""More are refused as a slip: OpenMP would end the process without a word."""


def usable_cores() -> int:
    """The cores that this process is allowed; all of the machine's where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
