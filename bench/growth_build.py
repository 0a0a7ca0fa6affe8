"""The memory of `highrise data build` for growing corpora: peak of the process, and of the largest worker, as a table.

usage: python bench/growth_build.py [--sizes 2000,10000,50000] [--search-memory 100000000] [--workers 1]

Documents of 16 kB of made-up prose in JSON lines, each size built in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORDS = 2_000


def write(path: Path, count: int) -> None:
    generator = np.random.default_rng(5)
    letters = generator.integers(ord("a"), ord("z") + 1, (20_000, 8), dtype=np.uint8)
    letters[:, 7] = ord(" ")
    with path.open("w") as file:
        for number in range(count):
            words = letters[generator.integers(0, len(letters), WORDS)].copy()
            words[::12, 7] = ord("\n")
            file.write(json.dumps({"text": words.tobytes().decode(), "path": f"{number % 100}/{number}.txt"}) + "\n")


def measure(count: int, search_memory: int, workers: int) -> dict[str, float]:
    from highrise.data.build import build_dataset
    from highrise.data.config import DataConfig

    with tempfile.TemporaryDirectory(prefix="highrise-bench-") as folder:
        source = Path(folder, "in.jsonl")
        subprocess.run([sys.executable, __file__, "--write", str(source), str(count)], check=True)
        began = time.process_time()
        config = DataConfig(sources=(str(source),), search_memory=search_memory)
        counts = build_dataset(config, Path(folder, "out"), workers=workers)
        seconds = time.process_time() - began
    assert counts["documents"] == count, counts
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"seconds": seconds, "peak": peaks[0], "workers": peaks[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description="peak memory of a build, for growing corpora")
    parser.add_argument("--sizes", default="2000,10000,50000")
    parser.add_argument("--search-memory", type=int, default=100_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.write:
        write(Path(chosen.write[0]), int(chosen.write[1]))
        return
    if chosen.one is not None:
        print(json.dumps(measure(chosen.one, chosen.search_memory, chosen.workers)))
        return
    print("| documents | text MB | CPU s of the parent | peak MB of the parent | of its largest child |")
    print("|---|---|---|---|---|")
    for size in map(int, chosen.sizes.split(",")):
        options = ["--search-memory", str(chosen.search_memory), "--workers", str(chosen.workers)]
        command = [sys.executable, __file__, "--one", str(size), *options]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        peaks = f"{found['peak'] / 1e6:.0f} | {found['workers'] / 1e6:.0f}"
        print(f"| {size} | {size * WORDS * 8 / 1e6:.0f} | {found['seconds']:.1f} | {peaks} |", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
