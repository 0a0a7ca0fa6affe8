"""Floor 6, load command: `highrise bench serve`, an engine in this process or a server under a URL."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from highrise.core.catalogue import locate
from highrise.core.errors import InputError, ServeError
from highrise.serve.load import Felt, Job, Report, Target, Workload, make_jobs, run_load, summarise
from highrise.serve.load_plot import plot

__all__ = ["bench", "engine_target", "http_target"]

_MOST_SOURCE = 2_000_000  # characters of text that prompts are cut from


def bench(arguments: argparse.Namespace) -> int:
    """Run every rate, print a line for each as it is done, and write what was asked for."""
    rates = _rates(arguments.rates)
    for name, low in (("requests", 1), ("prompt_tokens", 1), ("answer_tokens", 1)):
        if getattr(arguments, name) < low:
            raise InputError(f"--{name.replace('_', '-')} is {getattr(arguments, name)}; it must be at least {low}")
    for name in ("shared", "typing"):
        if not 0 <= getattr(arguments, name) <= 1:
            raise InputError(f"--{name} is {getattr(arguments, name)}; it is a share between 0 and 1")
    workload = Workload(
        num_requests=arguments.requests,
        prompt_tokens=arguments.prompt_tokens,
        answer_tokens=arguments.answer_tokens,
        shared=arguments.shared,
        typing=arguments.typing,
        seed=arguments.seed,
    )
    texts = _texts(Path(arguments.source) if arguments.source else Path(__file__).parents[1])
    reports = asyncio.run(_run(arguments, workload, texts, rates))
    if arguments.json:
        print(msgspec.json.format(msgspec.json.encode(reports), indent=2).decode())
    if arguments.plot:
        title = f"{arguments.target}: {workload.num_requests} requests, {workload.prompt_tokens} tokens in on average"
        Path(arguments.plot).write_text(plot(reports, title), encoding="utf-8")
    return 1 if any(report.num_failed for report in reports) else 0


def _rates(text: str) -> list[float | None]:
    rates: list[float | None] = []
    for part in text.split(","):
        try:
            rate = None if part.strip() == "all" else float(part)
        except ValueError:
            rate = -1.0
        if rate is not None and not 0 < rate < 1e6:
            raise InputError(f'--rates has "{part}"; give requests a second such as 0.5,1,2, or all for all at once')
        rates.append(rate)
    return rates


def _texts(folder: Path) -> list[str]:
    """Text of the sources below `folder`, in a fixed order, as much as is needed."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    texts, size = [], 0
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8", errors="ignore"))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
        size += len(texts[-1])
        if size > _MOST_SOURCE:
            break
    if not any(texts):
        raise InputError(f"there is no Python file in {folder} to cut prompts from; name another --source")
    return texts


async def _run(
    arguments: argparse.Namespace, workload: Workload, texts: list[str], rates: list[float | None]
) -> list[Report]:
    out = sys.stderr if arguments.json else sys.stdout
    if arguments.target.startswith(("http://", "https://")):
        target, close = http_target(arguments.target, arguments.model), lambda: None
    else:
        target, close = engine_target(arguments)
    reports = []
    print("| rate | done | failed | tokens/s | first token p50 / p90 / p99, ms | typing | between tokens | ", file=out)
    print("|---|---|---|---|---|---|---|", file=out, flush=True)
    try:
        for rate in rates:
            jobs = make_jobs(texts, workload, rate)
            count = 0

            def done(_: Felt, total: int = len(jobs)) -> None:
                nonlocal count
                count += 1
                if sys.stderr.isatty():
                    print(f"\r{count} of {total} answered", end="", file=sys.stderr, flush=True)

            began = time.perf_counter()
            felt = await run_load(target, jobs, done)
            reports.append(summarise(felt, rate, time.perf_counter() - began))
            if sys.stderr.isatty():
                print("\r\033[K", end="", file=sys.stderr)
            print(_line(reports[-1]), file=out, flush=True)
            for error in reports[-1].errors[:3]:
                print(f"failed: {error}", file=sys.stderr)
    finally:
        await asyncio.to_thread(close)
    return reports


def _line(report: Report) -> str:
    def words(values: tuple[float, ...] | None) -> str:
        return " / ".join(f"{value:,.0f}" for value in values) if values else "-"

    name = "all at once" if report.rate is None else f"{report.rate:g}/s"
    return (
        f"| {name} | {report.num_requests - report.num_failed} | {report.num_failed} | {report.tokens_per_second:,.1f} "
        f"| {words(report.first_ms.get('all'))} | {words(report.first_ms.get('typing'))} | {words(report.gap_ms)} |"
    )


def engine_target(arguments: argparse.Namespace) -> tuple[Target, Callable[[], None]]:
    """An engine in this process, and what closes it."""
    from highrise.serve.engine import Engine
    from highrise.serve.request import Priority, Request, Sampling
    from highrise.serve.runner import EngineRunner

    engine = Engine.load(
        locate(arguments.target),
        weights=arguments.weights,
        threads=arguments.threads,
        isa=arguments.kernels,
        max_waiting=max(256, arguments.requests),
        say=lambda line: print(line, file=sys.stderr),
    )
    runner = EngineRunner(engine)

    async def target(job: Job) -> AsyncIterator[int]:
        room = engine.max_context - job.num_tokens - 1
        request = Request(
            prompt_ids=engine.tokenizer.encode(job.prompt)[:room],
            sampling=Sampling(temperature=0, max_tokens=job.num_tokens, ignore_eos=True),
            priority=Priority.TYPING if job.typing else Priority.CHAT,
        )
        async for output in runner.generate(request):
            if output.ids:
                yield len(output.ids)

    return target, runner.close


def http_target(url: str, model: str | None) -> Target:
    """Any server of the OpenAI protocol; one piece of the stream is counted as one token where it does not say more."""
    import httpx

    base = url.rstrip("/").removesuffix("/v1")
    client = httpx.AsyncClient(base_url=base, timeout=600)
    names: list[str] = [] if model is None else [model]

    async def target(job: Job) -> AsyncIterator[int]:
        if not names:
            found = (await client.get("/v1/models")).json()["data"]
            names.append(found[0]["id"])
        body = {
            "model": names[0],
            "prompt": job.prompt,
            "max_tokens": job.num_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "priority": -1 if job.typing else 0,
        }
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            if answer.status_code != 200:
                raise ServeError(f"{answer.status_code}: {(await answer.aread())[:200].decode(errors='replace')}")
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    chunk = msgspec.json.decode(line[6:])
                    if "error" in chunk:
                        raise ServeError(str(chunk["error"]))
                    if any(choice.get("text") for choice in chunk.get("choices", ())):
                        yield 1

    return target
