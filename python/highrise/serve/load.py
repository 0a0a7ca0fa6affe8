"""Floor 6, load: requests that arrive as people's do, and what they felt. Knows neither engine nor HTTP.

A `Target` answers one prompt with a stream of token counts; arrivals are a Poisson process of a given rate, or all at
once (offline). Prompts are cut from real text, some behind a beginning that all share, some from typing, which is
short, urgent and answered in few tokens.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

__all__ = ["Felt", "Job", "Report", "Target", "Workload", "make_jobs", "percentile", "run_load", "summarise"]

PERCENTILES = (50, 90, 99)


class Job(msgspec.Struct, frozen=True):
    """One request: when it comes, what it asks, how many tokens it wants."""

    arrival: float
    """Seconds after the start."""
    prompt: str
    num_tokens: int
    typing: bool


class Felt(msgspec.Struct, frozen=True):
    """What one request felt, in seconds."""

    typing: bool
    first: float
    """From arrival to the first token."""
    gaps: tuple[float, ...]
    """Between pieces, each divided by its tokens."""
    total: float
    num_tokens: int
    error: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One rate: milliseconds at the percentiles of `PERCENTILES`, and what was done a second."""

    rate: float | None
    """Requests a second; None when all came at once."""
    num_requests: int
    num_failed: int
    seconds: float
    tokens_per_second: float
    requests_per_second: float
    first_ms: dict[str, tuple[float, ...]]
    """Time to the first token, of "all", "chat" and "typing"."""
    gap_ms: tuple[float, ...]
    """Between two tokens."""
    total_ms: tuple[float, ...]
    errors: tuple[str, ...] = ()


Target = Callable[[Job], AsyncIterator[int]]


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests are like."""

    num_requests: int = 32
    prompt_tokens: int = 256
    """Mean; half of them shorter, the longest four times as long (log-normal)."""
    answer_tokens: int = 32
    shared: float = 0.5
    """Share of the requests that begin with one common text of `prompt_tokens`."""
    typing: float = 0.25
    """Share of the requests that are typing."""
    seed: int = 0


def make_jobs(texts: Sequence[str], workload: Workload, rate: float | None) -> list[Job]:
    """The requests of one run: the same for the same seed but for the arrivals, which the rate stretches."""
    draw = random.Random(workload.seed)
    pool = "\n".join(texts)
    characters = 4 * workload.prompt_tokens

    def piece(size: int) -> str:
        start = draw.randrange(max(1, len(pool) - size))
        return pool[start : start + size] or "def main():\n    "

    beginning = piece(characters)
    jobs, now = [], 0.0
    for _ in range(workload.num_requests):
        typing = draw.random() < workload.typing
        size = min(int(characters * math.exp(draw.gauss(-0.18, 0.6))), 4 * characters)
        prompt = beginning + piece(size // 4) if draw.random() < workload.shared else piece(max(size, 4))
        tokens = max(1, round(workload.answer_tokens * draw.uniform(0.5, 1.5) * (0.5 if typing else 1)))
        gap = -math.log(1 - draw.random())
        if rate is not None:
            now += gap / rate
        jobs.append(Job(now, prompt, tokens, typing))
    return jobs


async def run_load(target: Target, jobs: Sequence[Job], done: Callable[[Felt], None] = lambda _: None) -> list[Felt]:
    """Send every job at its time, whatever the others do, and wait for all; `done` hears each as it ends."""
    started = time.perf_counter()

    async def one(job: Job) -> Felt:
        await asyncio.sleep(max(0.0, job.arrival - (time.perf_counter() - started)))
        began = last = time.perf_counter()
        first, gaps, count, error = 0.0, [], 0, ""
        try:
            async for size in target(job):
                now = time.perf_counter()
                if count:
                    gaps += [(now - last) / size] * size
                else:
                    first = now - began
                count, last = count + size, now
        except Exception as problem:  # one failed request is a finding of the run, not its end
            error = f"{type(problem).__name__}: {problem}"
        felt = Felt(job.typing, first, tuple(gaps), time.perf_counter() - began, count, error)
        done(felt)
        return felt

    return list(await asyncio.gather(*(one(job) for job in jobs)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` percent do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share / 100 * len(ordered)) - 1)] if ordered else 0.0


def _milliseconds(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(1000 * percentile(values, share), 2) for share in PERCENTILES)


def summarise(felt: Sequence[Felt], rate: float | None, seconds: float) -> Report:
    """The percentiles of one run that took `seconds`; failed requests are counted and left out of them."""
    good = [one for one in felt if not one.error and one.num_tokens]
    tokens = sum(one.num_tokens for one in good)
    kinds = {"all": good, "chat": [x for x in good if not x.typing], "typing": [x for x in good if x.typing]}
    return Report(
        rate=rate,
        num_requests=len(felt),
        num_failed=len(felt) - len(good),
        seconds=round(seconds, 3),
        tokens_per_second=round(tokens / max(seconds, 1e-9), 2),
        requests_per_second=round(len(good) / max(seconds, 1e-9), 3),
        first_ms={name: _milliseconds([one.first for one in some]) for name, some in kinds.items() if some},
        gap_ms=_milliseconds([gap for one in good for gap in one.gaps]),
        total_ms=_milliseconds([one.total for one in good]),
        errors=tuple(sorted({one.error for one in felt if one.error})),
    )
