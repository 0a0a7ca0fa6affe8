"""Streams that are read to the end or left early, many at once for minutes: errors, memory and pages of a real server.

`python -m bench.soak smollm2-135m --minutes 10 --streams 64 --cache-memory 1GB`

Starts `highrise serve` with whatever other flags are given. Each stream asks for a prompt of 20 to 400 words and 1 to
128 tokens more; about a third close the connection after a random number of pieces. Printed each half minute: the
streams read whole, left early and failed, the memory of server and engine (RSS), the share of the pages in use. Ends
with 1 if a stream failed, if the server left, or if pages are in use after the last stream.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import sys
import time
from pathlib import Path

import httpx
from tests.serve.listening import served

WORDS = ["def", "return", "while", "index", "buffer", "socket", "parse", "the", "of", "and", "queue", "page", "token"]
QUIET = 20.0
"""Seconds that the last streams' pages may take to come back."""


def resident(pid: int) -> list[float]:
    """MB held by a process, then by its children."""
    sizes = []
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()
    ]
    for one in [pid, *children]:
        lines = Path(f"/proc/{one}/status").read_text().splitlines()
        sizes.append(next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmRSS")))
    return sizes


async def stream(client: httpx.AsyncClient, draw: random.Random) -> str:
    """One stream, read whole or left after some pieces: what became of it."""
    prompt = " ".join(draw.choices(WORDS, k=draw.randint(20, 400)))
    body = {"prompt": prompt, "max_tokens": draw.randint(1, 128), "stream": True, "seed": draw.randint(0, 1 << 30)}
    leave = draw.randint(0, 40) if draw.random() < 0.35 else None
    pieces = 0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            return f"{answer.status_code}: {(await answer.aread())[:200]!r}"
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                return "whole"
            if line.startswith("data: "):
                found = json.loads(line[6:])
                if "error" in found:
                    return f"error in the stream: {found['error']}"
                pieces += 1
            if leave is not None and pieces >= leave:
                return "left early"
    return "the stream ended without [DONE]"


async def keep_asking(client: httpx.AsyncClient, until: float, seed: int, told: collections.Counter[str]) -> None:
    draw = random.Random(seed)
    while time.monotonic() < until:
        try:
            told[await stream(client, draw)] += 1
        except httpx.HTTPError as error:
            told[f"{type(error).__name__}: {error}"] += 1


async def pages_in_use(client: httpx.AsyncClient) -> float:
    """Percent of the pages, as /metrics has it."""
    for line in (await client.get("/metrics")).text.splitlines():
        if line.startswith("vllm:kv_cache_usage_perc"):
            return 100 * float(line.rsplit(" ", 1)[1])
    raise SystemExit("/metrics says nothing of the pages")


async def soak(url: str, pid: int, arguments: argparse.Namespace) -> bool:
    """Whether nothing failed and all pages came back."""
    told: collections.Counter[str] = collections.Counter()
    began = time.monotonic()
    until = began + 60 * arguments.minutes

    def say(usage: float) -> None:
        failed = told.total() - told["whole"] - told["left early"]
        memory = " + ".join(f"{size:.0f}" for size in resident(pid))
        counts = f"{told['whole']} whole, {told['left early']} left early, {failed} failed"
        seconds = time.monotonic() - began
        print(f"{seconds:5.0f} s: {counts}, {memory} MB, {usage:.0f} % of the pages in use", flush=True)

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=arguments.streams)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        asking = [
            asyncio.create_task(keep_asking(client, until, arguments.seed * 1000 + number, told))
            for number in range(arguments.streams)
        ]
        while not all(task.done() for task in asking):
            await asyncio.wait(asking, timeout=30)
            say(await pages_in_use(client))
        await asyncio.gather(*asking)
        waited = time.monotonic() + QUIET
        while (usage := await pages_in_use(client)) > 0 and time.monotonic() < waited:
            await asyncio.sleep(0.2)
        say(usage)
    failures = [f"{count} times {what}" for what, count in told.items() if what not in ("whole", "left early")]
    for failure in failures:
        print(failure)
    return not failures and usage == 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a name of the catalogue or a file")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments, more = parser.parse_known_args()
    with served(arguments.model, "--max-waiting", "1024", *more) as (url, server):
        fine = asyncio.run(soak(url, server.pid, arguments))
        fine = fine and server.poll() is None
    print("nothing failed, all pages are free" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
