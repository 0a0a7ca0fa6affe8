"""Engine beside llama.cpp: prompt and answer tokens a second and memory, the coder weights at 4 bits, two threads.

Ours quantises the catalogue's file to int4 at load; llama.cpp runs the Q4_0 file that its own llama-quantize makes of
it. Both run in a child process by turns and time themselves (ours around `Engine.step`, theirs is llama-bench), so
loading is left out. Needs the model in the catalogue's cache and llama.cpp (scripts/build_llama.sh); else it skips.

`python bench/bench_engine.py --child int4 512 32` prints our figures for a prompt of 512 and an answer of 32 as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS, PROMPT, ANSWER, TURNS = 2, 512, 32, 3
MODEL = "qwen2.5-coder-0.5b"


def child(weights: str, prompt: int, answer: int) -> dict[str, object]:
    """Our figures, measured in this process."""
    from highrise.core.catalogue import locate
    from highrise.serve.engine import Engine
    from highrise.serve.request import Request, Sampling

    started = time.perf_counter()
    engine = Engine.load(locate(MODEL), weights=weights, threads=THREADS, max_context=prompt + 2 * answer)
    loaded = time.perf_counter() - started
    text = Path(__file__).read_text() * 4
    ids = engine.tokenizer.encode(text)[:prompt]

    def seconds(tokens: list[int], count: int) -> float:
        """Time from the first step to the last token; for an answer the first token is not counted."""
        engine.cache.clear()
        engine.add(Request(prompt_ids=tokens, sampling=Sampling(temperature=0, max_tokens=count, ignore_eos=True)))
        if count > 1:
            engine.step()
        began = time.perf_counter()
        while engine.has_work:
            engine.step()
        return time.perf_counter() - began

    seconds(ids[:32], 4)
    prompt_rate = prompt / min(seconds(ids, 1) for _ in range(2))
    answer_rate = (answer - 1) / min(seconds(ids[:1], answer) for _ in range(2))
    return {"prompt": prompt_rate, "answer": answer_rate, "load": loaded, "isa": engine.decoder.isa}


def run(command: list[str]) -> tuple[str, int]:
    """Standard output and peak memory in bytes of a command."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, text=True)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]} left with {process.returncode}: {errors.read()[-500:]}")
        return out.read(), usage.ru_maxrss * 1024


def ours() -> dict[str, object]:
    out, memory = run([sys.executable, __file__, "--child", "int4", str(PROMPT), str(ANSWER)])
    return {**json.loads(out), "memory": memory}


def theirs(bench: str, file: Path) -> dict[str, object]:
    out, memory = run(
        [bench, "-m", str(file), "-t", str(THREADS), "-p", str(PROMPT), "-n", str(ANSWER), "-r", "2", "-o", "json"]
    )
    rates = {"prompt" if test["n_prompt"] else "answer": max(test["samples_ts"]) for test in json.loads(out)}
    return {**rates, "memory": memory, "isa": "llama.cpp's build"}


if __name__ != "__main__":
    import pytest
    from tests.serve.llama_cpp import tool

    from highrise.core.catalogue import locate
    from highrise.core.errors import HighriseError

    @pytest.fixture(scope="module")
    def measured():
        """Figures of both, each a list over turns."""
        bench, quantize = tool("llama-bench"), tool("llama-quantize")
        try:
            source = locate(MODEL)
        except HighriseError as error:
            pytest.skip(f"{MODEL} is not in the local cache: {error}")
        file = Path(".cache") / f"{MODEL}.Q4_0.gguf"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            run([quantize, "--allow-requantize", str(source), str(file), "Q4_0"])
        turns = [(ours(), theirs(bench, file)) for _ in range(TURNS)]
        return {"highrise": [turn[0] for turn in turns], "llama.cpp Q4_0": [turn[1] for turn in turns]}

    @pytest.mark.parametrize("who", ["highrise", "llama.cpp Q4_0"])
    @pytest.mark.parametrize(("path", "key"), [("prefill 512", "prompt"), ("decode, batch 1", "answer")])
    def test_speed(benchmark, measured, path, key, who):
        turns = measured[who]
        rate = statistics.median(turn[key] for turn in turns)
        memory = max(turn["memory"] for turn in turns)
        benchmark.pedantic(lambda: None, rounds=1)
        benchmark.extra_info.update(
            path=f"{MODEL} 4 bits, {THREADS} threads: {path}",
            who=who,
            amount=rate * benchmark.stats.stats.median,
            unit="tokens",
            note=f"{turns[0]['isa']}, peak memory {memory / 1e6:.0f} MB",
        )
        print(f"{who}: {path} {rate:.1f} tokens/s, peak memory {memory / 1e6:.0f} MB")


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
