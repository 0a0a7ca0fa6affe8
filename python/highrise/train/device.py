"""Floor 4, device: where a run computes, with how many threads, and in which precision.

The precision is measured, not looked up: bfloat16 only where a matrix product in it is faster. Knows no model.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Iterator

import torch

from highrise.core.cores import usable_cores
from highrise.core.errors import ConfigError

__all__ = ["autocast", "bfloat16_gain", "choose_device", "choose_precision", "keep_freed_memory", "use_threads"]


def choose_device(wanted: str) -> str:
    """ "cuda" where there is a GPU and it is not forbidden, else "cpu"."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no GPU here; take device = 'cpu' or 'auto'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, device: str) -> str:
    """ "bfloat16" or "float32"; "auto" measures (CPU, under 0.2 s) or takes bfloat16 (GPU)."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "bfloat16"
    return "bfloat16" if bfloat16_gain() > 1.2 else "float32"


def bfloat16_gain(size: int = 512) -> float:
    """How many times faster a (size, size) product is in bfloat16 than in float32 on this CPU, the best of five."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        best = float("inf")
        for _ in range(5):
            started = time.perf_counter()
            left @ right
            best = min(best, time.perf_counter() - started)
        seconds.append(best)
    return seconds[0] / seconds[1]


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next step instead of giving it back; False where there is no glibc.

    Activations are tens of megabytes, which malloc maps and unmaps at every use; where page faults are dear (virtual
    machines, sandboxes) that can cost more than the arithmetic. Holds for the process.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # the M_* of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1) and mallopt(top_pad, 64 << 20))


@contextlib.contextmanager
def use_threads(count: int | None) -> Iterator[int]:
    """Let torch use `count` threads (None: the cores this process may run on) inside the block; yields the number."""
    before = torch.get_num_threads()
    wanted = count or usable_cores()
    torch.set_num_threads(wanted)
    try:
        yield wanted
    finally:
        torch.set_num_threads(before)


def autocast(device: str, precision: str) -> torch.autocast:
    """The context in which forward passes run: products in bfloat16, or nothing at all."""
    return torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16")
