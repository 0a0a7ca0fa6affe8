"""What a process that has encoded much text still holds: the vocabulary, the caches' budget, and little else."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BUDGET_MB = 64
"""Of the cache of one thread: see `rust/encode/src/cache.rs`."""

ENCODE = """
import json, sys
from pathlib import Path
import numpy as np
from tests.encode.vocabularies import made

def megabytes(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024

def chunk(seed, size=4 << 20):
    # Words of random letters: hardly any was there before, and hardly any is a token.
    draw = np.random.default_rng(seed)
    letters = draw.integers(97, 123, size, dtype=np.uint8)
    letters[draw.integers(0, size, size // 7)] = 32
    return letters

tokenizer = made("cl100k")
offsets = np.array([0, 4 << 20], dtype=np.int64)
chunk(0)
loaded, done, ids, number = megabytes("VmRSS"), 0, 0, 0
while done < int(sys.argv[1]):
    found, _ = tokenizer.encode_batch((chunk(number), offsets), threads=1)
    ids, done, number = ids + len(found), done + (4 << 20), number + 1
print(json.dumps({"loaded": loaded, "peak": megabytes("VmHWM"), "ids": ids}))
"""


def peak_beyond_vocabulary(num_bytes: int) -> float:
    """Megabytes at the peak, less those after loading."""
    command = [sys.executable, "-c", ENCODE, str(num_bytes)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=3600)
    found = json.loads(run.stdout)
    print(num_bytes, found)
    return float(found["peak"] - found["loaded"])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("num_bytes", [16 << 20, pytest.param(2 << 30, marks=pytest.mark.slow)])
def test_memory_stays_within_the_budget(num_bytes: int) -> None:
    assert peak_beyond_vocabulary(num_bytes) < BUDGET_MB + 100
