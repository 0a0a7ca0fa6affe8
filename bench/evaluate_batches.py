"""Batches of answers beside llama.cpp's own bench: tokens in a second of CPU time, one thread, coder weights at 4 bits.

CPU time of one thread, and not the clock's, so that other work on the machine hardly counts. Each figure of llama.cpp
is the difference of two runs of llama-batched-bench, with many and with few new tokens, so that loading and prompts
fall out; ours is taken around the steps that answer. Prompts of 128 tokens, none shared.

`python bench/evaluate_batches.py path/to/llama-batched-bench path/to/Q4_0.gguf 1 4 16`
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from highrise.core.catalogue import locate
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling

PROMPT, ANSWER, FEW, TURNS = 128, 26, 2, 2


def ours(engine: Engine, batch: int) -> float:
    """Tokens in a second of CPU time while all requests answer."""
    engine.cache.clear()
    rng = np.random.default_rng(batch)
    sampling = Sampling(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    for _ in range(batch):
        ids = rng.integers(1000, 50_000, PROMPT).tolist()
        engine.add(Request(prompt_ids=ids, sampling=sampling))
    while any(sequence.num_missing > 1 for sequence in [*engine.scheduler.running, *engine.scheduler.waiting]):
        engine.step()
    before, began = engine.stats().generated_tokens, time.process_time()
    while engine.has_work:
        engine.step()
    return (engine.stats().generated_tokens - before) / (time.process_time() - began)


def theirs(bench: str, file: str, batch: int) -> float:
    """The same of llama.cpp."""

    def seconds(answer: int) -> float:
        command = [
            bench,
            "-m",
            file,
            "-t",
            "1",
            "-tb",
            "1",
            "-c",
            "4096",
            "-b",
            "512",
            "-ub",
            "512",
            "-npp",
            str(PROMPT),
        ]
        process = subprocess.Popen(
            [*command, "-ntg", str(answer), "-npl", str(batch), "-ngl", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{bench} left with {process.returncode}")
        return usage.ru_utime + usage.ru_stime

    return batch * (ANSWER - FEW) / (seconds(ANSWER) - seconds(FEW))


def main(bench: str, file: str, *batches: str) -> None:
    """Both in turn, the best of each."""
    path = locate("qwen2.5-coder-0.5b")
    engine = Engine.load(path, weights="int4", threads=1, max_context=256, speculate=False, say=print)
    for batch in map(int, batches):
        pairs = [(ours(engine, batch), theirs(bench, file, batch)) for _ in range(TURNS)]
        mine, other = (max(one) for one in zip(*pairs, strict=True))
        print(
            f"batch {batch}: {mine:.1f} and llama.cpp {other:.1f} tokens a CPU second, ratio {mine / other:.2f}, "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
