"""Prompt look-up: tokens a second with and without guessing ahead, on edits of code and on chat; the tokens are equal.

The same engine answers the same requests by turns with `speculate` on and off. Tokens a step do not depend on the
machine's load, the ratio of times does. Needs the coder weights. The kernels are such that a batch changes no token
(`avx512vnni`, or what the CPU has below it), so that equality can be asserted.

`python bench/bench_speculative.py [TURNS]` prints the table without pytest.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.native import csrc
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling

MODEL, THREADS, ANSWER = "qwen2.5-coder-0.5b", 2, 96
SOURCE = Path(__file__).parents[1] / "python/highrise/serve"
EDITS = (
    ("stop.py", "Rename the method `push` to `feed` and give back the whole class."),
    ("sequence.py", "Give back this code with a type annotation on every attribute."),
)
QUESTIONS = (
    "What is a page table, and why are pages of equal size?",
    "Write a Python function that merges sorted lists.",
)


def load() -> Engine:
    """The coder weights at 4 bits, on kernels whose results do not depend on the batch."""
    isa = next(name for name in csrc.available_isas() if name != "amx")
    return Engine.load(locate(MODEL), weights="int4", threads=THREADS, isa=isa, max_context=4096)


def requests(engine: Engine, kind: str) -> list[Request]:
    """Greedy requests of one kind."""
    if kind == "edits":
        asked = [f"{task}\n\n```python\n{(SOURCE / name).read_text()[:2400]}\n```" for name, task in EDITS]
    else:
        asked = list(QUESTIONS)
    sampling = Sampling(temperature=0, max_tokens=ANSWER)
    return [
        Request(prompt_ids=engine.prompts.chat([{"role": "user", "content": text}]).ids, sampling=sampling)
        for text in asked
    ]


def answer(engine: Engine, request: Request, speculate: bool) -> tuple[list[int], float, int]:
    """Tokens, seconds from the first to the last, and steps in between."""
    engine.scheduler.speculate = speculate
    engine.add(request)
    ids: list[int] = []
    while not ids:
        ids += [token for output in engine.step() for token in output.ids]
    began, first = time.perf_counter(), engine.stats().num_steps
    while engine.has_work:
        ids += [token for output in engine.step() for token in output.ids]
    return ids, time.perf_counter() - began, engine.stats().num_steps - first


def measure(engine: Engine, kind: str, turns: int = 2) -> dict[str, float]:
    """Medians over the requests of one kind; every answer is the same with and without guesses."""
    plain_rates, ahead_rates, a_step = [], [], []
    for request in requests(engine, kind):
        answer(engine, request, False)  # the prompt is cached from here on
        plain, ahead = [], []
        for _ in range(turns):
            ids, seconds, _ = answer(engine, request, False)
            plain.append((len(ids) - 1) / seconds)
            same, seconds, steps = answer(engine, request, True)
            assert same == ids
            ahead.append((len(ids) - 1) / seconds)
        plain_rates.append(statistics.median(plain))
        ahead_rates.append(statistics.median(ahead))
        a_step.append((len(ids) - 1) / steps)
    return {
        "plain": statistics.mean(plain_rates),
        "ahead": statistics.mean(ahead_rates),
        "ratio": statistics.mean(fast / slow for fast, slow in zip(ahead_rates, plain_rates, strict=True)),
        "a_step": statistics.mean(a_step),
    }


if __name__ != "__main__":
    import pytest

    @pytest.fixture(scope="module")
    def engine():
        try:
            return load()
        except HighriseError as error:
            pytest.skip(f"{MODEL} is not in the local cache: {error}")

    @pytest.mark.parametrize("kind", ["edits", "chat"])
    def test_guessing_ahead(benchmark, engine, kind):
        found = measure(engine, kind)
        benchmark.pedantic(lambda: None, rounds=1)
        benchmark.extra_info.update(
            path=f"decode with prompt look-up, {kind}",
            who="highrise",
            amount=found["ahead"] * benchmark.stats.stats.median,
            unit="tokens",
            note=f"{engine.decoder.isa}; {found['ratio']:.2f}x plain, {found['a_step']:.2f} tokens a step",
        )
        print(kind, {name: round(value, 2) for name, value in found.items()})


if __name__ == "__main__":
    loaded = load()
    print(f"{MODEL} int4, {THREADS} threads, {loaded.decoder.isa}")
    print("| answers | plain, tokens/s | guessing ahead | ratio | tokens a step |")
    print("|---|---|---|---|---|")
    for name in ("edits", "chat"):
        row = measure(loaded, name, int(sys.argv[1]) if len(sys.argv) > 1 else 2)
        print(
            f"| {name} | {row['plain']:.1f} | {row['ahead']:.1f} | {row['ratio']:.2f} | {row['a_step']:.2f} |",
            flush=True,
        )
