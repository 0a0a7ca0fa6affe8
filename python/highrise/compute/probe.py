"""Floor 1, probe: two quick measurements of this machine, matrix products and memory reads, through numpy.

Each takes under a second. They are floors of what the machine can do (numpy's BLAS, numpy's reductions), not
datasheet peaks, and they vary by some ten per cent on a busy machine: the best of several repeats is returned.
"""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor

__all__ = ["matmul_flops", "memory_bandwidth"]


@functools.cache
def matmul_flops(*, size: int = 1024, seconds: float = 0.3) -> float:
    """Floating-point operations a second of a float32 product of two square matrices, as many threads as BLAS takes."""
    import numpy as np

    generator = np.random.default_rng(0)
    left = generator.standard_normal((size, size), dtype=np.float32)
    right = generator.standard_normal((size, size), dtype=np.float32)
    out = np.empty_like(left)
    np.matmul(left, right, out=out)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        started = time.perf_counter()
        np.matmul(left, right, out=out)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best


@functools.cache
def memory_bandwidth(*, threads: int = 1, size: int = 256 << 20, repeats: int = 4) -> float:
    """Bytes a second of `threads` threads reading `size` bytes together, far more than the caches of most machines."""
    import numpy as np

    parts = np.array_split(np.ones(size // 8, dtype=np.int64), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            started = time.perf_counter()
            list(pool.map(np.max, parts))  # numpy releases the interpreter lock in reductions
            best = min(best, time.perf_counter() - started)
    return sum(part.nbytes for part in parts) / best
