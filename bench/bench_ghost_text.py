"""Ghost text: time to the first token after a key, in a file of 1,500 tokens, one more character typed each time.

What a key costs is set beside one step of decoding on the same machine in the same minutes: the goal is two steps. Ways
to lay out the prompt are compared: "floating" is what the server does (the text after the cursor is taken over to its
new place), "whole suffix" computes it anew with each key, "suffix of 16" keeps little of it, "suffix first" puts it
before the text that grows. `docs/log/serve-ghost-text.md` has how often each is right. Needs the coder weights.

`python bench/bench_ghost_text.py` prints the table without pytest.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.serve.engine import Engine
from highrise.serve.request import Priority, Request, Sampling

MODEL, THREADS, KEYS, SUFFIX_TOKENS, PREFIX_TOKENS, ANSWER = "qwen2.5-coder-0.5b", 2, 30, 300, 1_200, 8
SOURCE = Path(__file__).parents[1] / "python/highrise/serve/engine.py"
WAYS = ("floating", "whole suffix", "suffix of 16", "suffix first")


def load() -> Engine:
    """The coder weights at 4 bits."""
    return Engine.load(locate(MODEL), weights="int4", threads=THREADS, max_context=4096, speculate=False)


def cut(engine: Engine) -> tuple[str, str, str]:
    """Text before the cursor, what will be typed, text after it."""
    text = SOURCE.read_text()
    ids = engine.tokenizer.encode(text)
    start = len(engine.tokenizer.decode(ids[:PREFIX_TOKENS]))
    after = text[start + 2 * KEYS :]
    return (
        text[:start],
        text[start : start + KEYS],
        engine.tokenizer.decode(engine.tokenizer.encode(after)[:SUFFIX_TOKENS]),
    )


def request_of(engine: Engine, way: str, prefix: str, suffix: str) -> Request:
    """One key's request, laid out in one way."""
    sampling = Sampling(temperature=0, max_tokens=ANSWER, ignore_eos=True)
    options: dict[str, Any] = {"sampling": sampling, "priority": Priority.TYPING, "session": "editor"}
    if way == "suffix first":
        special = engine.tokenizer.special_tokens
        marks = [special[f"<|fim_{name}|>"] for name in ("prefix", "suffix", "middle")]
        encode = engine.tokenizer.encode
        return Request(prompt_ids=[*marks[:2], *encode(suffix), marks[2], *encode(prefix)], **options)
    if way == "suffix of 16":
        suffix = engine.tokenizer.decode(engine.tokenizer.encode(suffix)[:16])
    prompt = engine.prompts.infill(prefix, suffix, heal=way == "floating")
    if way == "floating":
        return Request(prompt_ids=prompt.ids, floating=prompt.floating, begins=prompt.begun, **options)
    return Request(prompt_ids=prompt.ids, **options)


def type_text(engine: Engine, way: str) -> dict[str, float]:
    """Medians over the keys: milliseconds to the first token, to the first text and of a step, and tokens computed."""
    prefix, typed, suffix = cut(engine)
    engine.cache.clear()
    first, shown, steps, computed = [], [], [], []
    for key in range(KEYS + 1):
        before = engine.stats().prompt_tokens
        began = time.perf_counter()
        engine.add(request_of(engine, way, prefix + typed[:key], suffix))
        seen = text_seen = 0.0
        while engine.has_work:
            step_began = time.perf_counter()
            outputs = [output for output in engine.step() if output.ids]
            now = time.perf_counter()
            if outputs and seen:
                steps.append(now - step_began)
            if outputs and not seen:
                seen = now - began
            if not text_seen and any(output.text for output in outputs):
                text_seen = now - began
        if key:
            first.append(seen)
            shown.append(text_seen)
            computed.append(engine.stats().prompt_tokens - before)
    medians = [1000 * statistics.median(times) for times in (first, shown, steps)]
    return dict(zip(("first", "shown", "step"), medians, strict=True)) | {"computed": statistics.median(computed)}


if __name__ != "__main__":
    import pytest

    @pytest.fixture(scope="module")
    def engine():
        try:
            return load()
        except HighriseError as error:
            pytest.skip(f"{MODEL} is not in the local cache: {error}")

    @pytest.mark.parametrize("way", WAYS)
    def test_key_to_first_token(benchmark, engine, way):
        found = type_text(engine, way)
        benchmark.pedantic(lambda: None, rounds=1)
        note = f"first token {found['first']:.0f} ms = {found['first'] / found['step']:.1f} steps"
        benchmark.extra_info.update(
            path=f"ghost text, {PREFIX_TOKENS + SUFFIX_TOKENS} tokens around the cursor, a key",
            who="highrise" if way == "floating" else f"highrise, {way}",
            amount=1000 / found["first"] * benchmark.stats.stats.median,
            unit="keys",
            note=f"{engine.decoder.isa}; {note}",
        )
        print(way, {name: round(value, 1) for name, value in found.items()})


if __name__ == "__main__":
    loaded = load()
    print(f"{MODEL} int4, {THREADS} threads, {loaded.decoder.isa}: medians over {KEYS} keys")
    print("| way | tokens computed a key | first token, ms | first text, ms | one step, ms | first token in steps |")
    print("|---|---|---|---|---|---|")
    for name in WAYS:
        row = type_text(loaded, name)
        print(
            f"| {name} | {row['computed']:.0f} | {row['first']:.1f} | {row['shown']:.1f} | {row['step']:.1f} "
            f"| {row['first'] / row['step']:.1f} |"
        )
