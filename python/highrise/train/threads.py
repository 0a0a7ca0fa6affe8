"""Floor 4, threads: how torch's threads wait for one another, settled before torch is loaded.

GNU OpenMP lets a thread that waits spin 300,000 times before it sleeps. Where other programs want the same cores, the
thread that it waits for is the one that does not run, and a tuning step takes ten times the processor time
(docs/log/train.md). Knows nothing of torch.
"""

from __future__ import annotations

import os

__all__ = ["wait_briefly"]

_SPINS = "1000"


def wait_briefly() -> None:
    """Let waiting threads sleep after about 50 microseconds, unless the person who started the program said otherwise.

    libgomp reads its settings once, when it is loaded, and has no function for this one.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
