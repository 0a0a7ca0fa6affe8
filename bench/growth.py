"""How the cost of de-duplication grows: CPU seconds and memory for 10^4, 10^5, 10^6 ... synthetic texts, as a table.

usage: python bench/growth.py [--to 6] [--threads 1] [--memory 1G]

Texts of 704 bytes (88 words of a vocabulary of 20,000), a third of them copies with one word changed; each size runs in
a process of its own. In memory the texts are an Arrow column, which is not copied, and what counts is the peak of the
process beyond what it held when they were ready. With --memory it is `highrise data dedup` from Parquet to Parquet,
reading and writing included, and the peak of the whole process.
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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.data import deduplicate

WORDS, VOCABULARY, CHUNK = 88, 20_000, 99_999


def chunks(count: int) -> Iterator[pa.Array]:
    """`count` texts as large strings."""
    generator = np.random.default_rng(7)
    letters = generator.integers(ord("a"), ord("z") + 1, (VOCABULARY, 8), dtype=np.uint8)
    letters[:, -1] = ord(" ")
    for start in range(0, count, CHUNK):
        rows = min(CHUNK, count - start)
        words = generator.integers(0, VOCABULARY, (rows, WORDS), dtype=np.int32)
        copies = np.arange(2, rows, 3)
        words[copies] = words[copies - 2]
        words[copies, generator.integers(0, WORDS, len(copies))] = generator.integers(0, VOCABULARY, len(copies))
        data = letters[words].reshape(-1)
        offsets = np.arange(rows + 1, dtype=np.int64) * (WORDS * 8)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        yield pa.Array.from_buffers(pa.large_string(), rows, buffers)


def resident() -> int:
    """Bytes that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(count: int, threads: int) -> dict[str, float]:
    texts = pa.chunked_array([*chunks(count)])
    deduplicate(texts.slice(0, 100), threads=threads)
    held, began = resident(), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    found = deduplicate(texts, threads=threads)
    used = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    wrong = abs(int(found.keep.sum()) - (count - count // 3)) / count
    return {"seconds": used, "bytes": peak - held, "wrong": wrong}


def measure_spilled(count: int, threads: int, memory: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="highrise-bench-") as folder:
        source, target = Path(folder, "in.parquet"), Path(folder, "out.parquet")
        schema = pa.schema([("text", pa.large_string())])
        with pq.ParquetWriter(source, schema, compression="zstd") as writer:
            for chunk in chunks(count):
                writer.write_table(pa.table([chunk], schema=schema), row_group_size=10_000)
        options = ["--memory", memory, "--threads", str(threads)]
        command = [sys.executable, "-m", "highrise.cli", "data", "dedup", str(source), str(target), *options]
        subprocess.run(command, check=True, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        kept = pq.read_metadata(target).num_rows
    wrong = abs(kept - (count - count // 3)) / count
    return {"seconds": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024, "wrong": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="CPU seconds and memory of de-duplication, for growing numbers of texts"
    )
    parser.add_argument("--to", type=int, default=6, help="the largest power of ten (default: 6)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", default="", help="out of core, with this much memory")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one is not None:
        spilled = chosen.memory != ""
        result = (
            measure_spilled(chosen.one, chosen.threads, chosen.memory)
            if spilled
            else measure(chosen.one, chosen.threads)
        )
        print(json.dumps(result))
        return
    print("| texts | CPU s | microseconds a text | peak MB | bytes a text | documents too many or too few |")
    print("|---|---|---|---|---|---|")
    for power in range(4, chosen.to + 1):
        count = 10**power
        command = [sys.executable, __file__, "--one", str(count), "--threads", str(chosen.threads)]
        command += ["--memory", chosen.memory]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        seconds, peak = found["seconds"], found["bytes"]
        row = f"| 10^{power} | {seconds:.2f} | {seconds / count * 1e6:.2f} | {peak / 1e6:.0f} | {peak / count:.0f} "
        print(f"{row}| {found['wrong']:.2%} |", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
