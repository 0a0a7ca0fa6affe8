"""What a programmer feels, over HTTP beside llama-server: a cold prompt, and a machine that does something else too.

Coder weights at 4 bits on two threads: ours quantised at load, theirs the Q4_0 file that llama-quantize makes. "cold"
is the time until the first text of 1,500 tokens that no cache has seen. "busy" is the rate of a streamed answer alone
and beside a process that never rests: three threads on two cores, so two thirds is what a fair share leaves. Both
servers run all the time and are asked by turns. Needs the model in the catalogue's cache and llama.cpp
(scripts/build_llama.sh); else it skips.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.serve.listening import served
from tests.serve.llama_cpp import llama_server, tool

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode import Tokenizer

MODEL, THREADS, TURNS = "qwen2.5-coder-0.5b", 2, 5
PROMPT, ANSWER = 1_500, 64
OURS, THEIRS = "highrise", "llama.cpp Q4_0"
FLAGS = ["--weights", "int4", "--threads", str(THREADS), "--max-context", "4096"]
SOURCES = sorted(Path(__file__).parents[1].glob("python/highrise/**/*.py"))


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Addresses of both servers."""
    try:
        source = locate(MODEL)
    except HighriseError as error:
        pytest.skip(f"{MODEL} is not in the local cache: {error}")
    file = Path(".cache") / f"{MODEL}.Q4_0.gguf"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        subprocess.run(
            [tool("llama-quantize"), "--allow-requantize", str(source), str(file), "Q4_0"],
            check=True,
            capture_output=True,
        )
    with llama_server(file, context=4096, threads=THREADS) as theirs, served(MODEL, *FLAGS) as (ours, _):
        yield {OURS: ours, THEIRS: theirs.url}


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    """Token ids of code, no two prompts alike from the first token on."""
    ids = Tokenizer.for_weights(locate(MODEL)).encode("".join(path.read_text() for path in SOURCES))
    return [ids[start : start + PROMPT] for start in range(0, len(ids) - PROMPT, PROMPT)]


def ask(url: str, prompt: list[int], tokens: int) -> tuple[float, float]:
    """Seconds until the first text and until the end of a streamed answer."""
    body: dict[str, Any] = {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    began = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    first = 0.0
    for line in answer:
        if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
            first = time.perf_counter() - began
    connection.close()
    return first, time.perf_counter() - began


@pytest.fixture(scope="module")
def cold(servers: dict[str, str], prompts: list[list[int]]) -> dict[str, float]:
    """Median seconds until the first text of a cold prompt; the first turn warms up."""
    found: dict[str, list[float]] = {OURS: [], THEIRS: []}
    for turn in range(TURNS + 1):
        for who, url in servers.items():
            found[who].append(ask(url, prompts[turn], 4)[0])
    return {who: statistics.median(times[1:]) for who, times in found.items()}


@pytest.fixture(scope="module")
def rates(servers: dict[str, str], prompts: list[list[int]]) -> dict[str, dict[str, float]]:
    """Median tokens a second of an answer, "alone" and "busy"."""

    def rate(url: str, turn: int) -> float:
        first, last = ask(url, prompts[-1 - turn][:32], ANSWER)
        return (ANSWER - 1) / (last - first)

    found: dict[str, dict[str, list[float]]] = {who: {"alone": [], "busy": []} for who in servers}
    for turn in range(TURNS):
        for who, url in servers.items():
            found[who]["alone"].append(rate(url, 2 * turn))
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            for who, url in servers.items():
                found[who]["busy"].append(rate(url, 2 * turn + 1))
        finally:
            busy.kill()
            busy.wait()
    return {who: {how: statistics.median(values) for how, values in of.items()} for who, of in found.items()}


@pytest.mark.parametrize("who", [OURS, THEIRS])
def test_cold_prompt(benchmark: Any, cold: dict[str, float], who: str) -> None:
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(
        path=f"{MODEL} 4 bits, {THREADS} threads: first text of {PROMPT:,} cold tokens over HTTP",
        who=who,
        amount=benchmark.stats.stats.median / cold[who],
        unit="prompts",
        note=f"{1000 * cold[who]:.0f} ms",
    )
    print(f"{who}: {1000 * cold[who]:.0f} ms")


@pytest.mark.parametrize("who", [OURS, THEIRS])
def test_beside_a_busy_process(benchmark: Any, rates: dict[str, dict[str, float]], who: str) -> None:
    alone, busy = rates[who]["alone"], rates[who]["busy"]
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(
        path=f"{MODEL} 4 bits, {THREADS} threads: answer beside a busy process",
        who=who,
        amount=busy * benchmark.stats.stats.median,
        unit="tokens",
        note=f"{busy / alone:.0%} of {alone:.0f} tokens/s alone",
    )
    print(f"{who}: {busy:.1f} of {alone:.1f} tokens/s")
