"""An engine in a process of its own: same answers, nothing waits for the server, a death is told and mended."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.errors import ConfigError, InputError, ServeError
from highrise.serve.engine_link import Cancel, Channel, ServerMessage
from highrise.serve.engine_process import EngineProcess
from highrise.serve.engine_view import RestartingError
from highrise.serve.http import serve_app
from highrise.serve.request import Output, Request
from tests.serve.engine_parts import greedy, ids_of, text_of, weights
from tests.serve.listening import HTTP, listening
from tests.serve.test_adapters import draw_parts, write_folder
from tests.serve.tiny_backend import process_backend, tiny_model, tiny_process

ROOT = Path(__file__).parents[2]
PROMPT = [5, 17, 33, 2, 8, 61, 40]


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the process is started without the working folder in its path


@contextlib.contextmanager
def started(**options: Any) -> Iterator[EngineProcess]:
    process = tiny_process(**options)
    try:
        process.wait()
        yield process
    finally:
        process.close()


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        with started() as one:
            yield one


async def collect(process: EngineProcess, request: Request) -> list[Output]:
    return [output async for output in process.generate(request)]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------------------- the same engine


def test_answers_are_those_of_the_engine_here(process: EngineProcess) -> None:
    requests = [greedy([index, *PROMPT], 6 + index, logprobs=2, echo=index % 2 == 0) for index in range(6)]

    async def together() -> list[list[Output]]:
        return await asyncio.gather(*(collect(process, request) for request in requests))

    for request, outputs in zip(requests, asyncio.run(together()), strict=True):
        here = tiny_model().generate([request])[0]
        assert ids_of(outputs) == ids_of(here) and text_of(outputs) == text_of(here)
        assert [output.logprobs for output in outputs] == [output.logprobs for output in here]
        assert outputs[0].prompt_logprobs == here[0].prompt_logprobs
        assert outputs[-1].finish_reason == "length"


def test_choices_of_one_prompt_compute_it_once(process: EngineProcess) -> None:
    prompt = [7, 7, 7, *range(40)]

    async def together() -> list[list[Output]]:
        requests = [greedy(prompt, 3) for _ in range(3)]
        same = [Request(prompt_ids=prompt, sampling=request.sampling) for request in requests]
        return await asyncio.gather(*(collect(process, request) for request in same))

    cached = [outputs[-1].num_cached_tokens for outputs in asyncio.run(together())]
    assert cached[0] == 0 and min(cached[1:]) >= 40


def test_leaving_and_cancelling_free_the_pages(process: EngineProcess) -> None:
    async def leave() -> None:
        stream = process.generate(greedy(PROMPT, 110))
        async for _ in stream:
            break
        await stream.aclose()
        task = asyncio.create_task(collect(process, greedy(PROMPT, 110)))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(collect(process, greedy([1, *PROMPT], 2)))

    asyncio.run(leave())
    stats = process.stats()
    assert stats.num_running == 0 and stats.num_free_pages == stats.num_pages


def test_errors_reach_the_caller_and_only_him(process: EngineProcess) -> None:
    async def mixed() -> list[Output]:
        good = asyncio.create_task(collect(process, greedy(PROMPT, 5)))
        with pytest.raises(InputError, match="the prompt is empty"):
            await collect(process, greedy([]))
        with pytest.raises(InputError, match="logit_bias names token 500"):
            await collect(process, greedy(PROMPT, 5, logit_bias={500: 1.0}))
        with pytest.raises(InputError, match='adapter "none" is not loaded'):
            await collect(process, greedy(PROMPT, 5, adapter="none"))
        return await good

    assert len(ids_of(asyncio.run(mixed()))) == 5


def test_vectors_come_between_steps(process: EngineProcess) -> None:
    async def both() -> Any:
        return await asyncio.gather(process.embed([PROMPT, PROMPT[:4]]), collect(process, greedy(PROMPT, 20)))

    vectors, outputs = asyncio.run(both())
    assert (vectors == tiny_model().embed([PROMPT, PROMPT[:4]])).all()
    assert len(ids_of(outputs)) == 20


def test_one_loop_after_another_but_not_two_at_a_time(process: EngineProcess) -> None:
    gone = asyncio.new_event_loop()
    gone.run_until_complete(process.generate(greedy(PROMPT, 110)).__anext__())
    gone.close()

    async def first() -> None:
        task = asyncio.create_task(collect(process, greedy(PROMPT, 30)))
        await asyncio.sleep(0)
        with pytest.raises(ServeError, match="read by another asyncio loop"):
            await asyncio.to_thread(lambda: asyncio.run(collect(process, greedy(PROMPT, 3))))
        assert len(ids_of(await task)) == 30

    asyncio.run(first())
    assert process.stats().num_running == 0, "what the dead loop had asked for was cancelled"


def processor_ticks(pid: int) -> int:
    """Processor time of a process so far, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_a_busy_loop_holds_up_no_step(process: EngineProcess) -> None:
    """All is computed while the loop answers nobody: when it goes on the engine has no work any more."""
    assert process._child is not None
    pid = process._child.pid

    async def busy() -> tuple[int, list[int]]:
        ticks = [processor_ticks(pid)]
        stream = process.generate(greedy([9, *PROMPT], 110))
        await stream.__anext__()
        still, last, until = 0, -1, time.monotonic() + 60
        while still < 20 and time.monotonic() < until:
            time.sleep(0.05)
            now = processor_ticks(pid)
            still, last = (still + 1 if now == last else 0), now
        ticks.append(last)
        outputs = [output async for output in stream]
        return len(outputs), [*ticks, processor_ticks(pid)]

    count, (begun, held, ended) = asyncio.run(busy())
    assert count >= 100
    assert ended - held <= max(1, (held - begun) // 2)


# ---------------------------------------------------------------------------------------------------- its death


def test_a_killed_engine_is_told_to_all_and_started_again() -> None:
    """SIGKILL in the middle of streams under load: streams end with an error event, who waits or comes gets 503."""
    with started(slow=0.02) as process:
        backend = process_backend(process)
        ends: list[tuple[int, str]] = []

        def stream(url: str, number: int) -> None:
            body = {"prompt": f"prompt {number}", "max_tokens": 100, "stream": True, "ignore_eos": True}
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as answer:
                last = answer.read().decode().strip().splitlines()[-1]
            ends.append((answer.status_code, last.removeprefix("data: ")))

        with listening(serve_app(backend)) as url:
            threads = [threading.Thread(target=stream, args=(url, number)) for number in range(24)]
            for thread in threads:
                thread.start()
            wait_until(lambda: process.stats().num_running > 8 and process.stats().generated_tokens > 40)
            wait_until(lambda: process.stats().num_waiting > 0)
            assert process._child is not None
            process._child.send_signal(signal.SIGKILL)
            wait_until(lambda: HTTP.get(f"{url}/healthz").status_code == 503)
            refused = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 2})
            for thread in threads:
                thread.join(20)
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "engine_restarting"
            assert len(ends) == 24
            assert {status for status, _ in ends} == {200, 503}
            for _, end in ends:
                error = json.loads(end)["error"]
                assert error["code"] == "engine_restarting" and error["type"] == "server_error"
            wait_until(lambda: HTTP.get(f"{url}/healthz").status_code == 200, 30)
            again = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 5, "ignore_eos": True})
            assert again.status_code == 200 and again.json()["usage"]["completion_tokens"] == 5
            page = HTTP.get(f"{url}/metrics").text
            assert re.search(r'highrise:engine_restarts_total{model_name="tiny"} 1\.0', page)
            assert re.search(r'highrise:engine_up{model_name="tiny"} 1\.0', page)
            assert backend._generation.in_flight == 0


@pytest.mark.parametrize("busy", [True, False])
def test_an_engine_that_hangs_is_killed_and_started_again(busy: bool) -> None:
    """SIGSTOP, amid steps and without work, stands for a native loop without end: 503 for all, then it serves again."""
    with started(slow=0.02, step_timeout=2.5) as process:
        backend = process_backend(process)
        codes: list[tuple[int, str]] = []

        def ask(url: str) -> None:
            body = {"prompt": "a prompt", "max_tokens": 100, "ignore_eos": True}
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=30)
            codes.append((answer.status_code, answer.text))

        with listening(serve_app(backend)) as url:
            threads = [threading.Thread(target=ask, args=(url,)) for _ in range(20)]
            if busy:
                for thread in threads:
                    thread.start()
                wait_until(lambda: process.stats().num_running > 8 and process.stats().num_waiting > 0)
            child = process._child
            assert child is not None
            child.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            if not busy:
                for thread in threads:
                    thread.start()
            assert HTTP.get(f"{url}/healthz").status_code == 200, "nothing is known yet"
            wait_until(lambda: HTTP.get(f"{url}/healthz").status_code == 503, 20)
            assert time.monotonic() - stopped > 2
            assert "no step ended within 2.5 s" in HTTP.get(f"{url}/healthz").text
            for thread in threads:
                thread.join(20)
            assert child.returncode == -signal.SIGKILL
            assert len(codes) == 20
            for code, text in codes:
                assert code == 503 and json.loads(text)["error"]["code"] == "engine_restarting"
                assert "no step ended within 2.5 s" in text
            wait_until(lambda: HTTP.get(f"{url}/healthz").status_code == 200, 30)
            again = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 5, "ignore_eos": True})
            assert again.status_code == 200 and process.num_restarts == 1
            assert backend._generation.in_flight == 0


def test_neither_idleness_nor_a_server_that_reads_nothing_is_taken_for_a_hang() -> None:
    async def begin(process: EngineProcess) -> list[Output]:
        stream = process.generate(greedy(PROMPT, 100))
        first = await stream.__anext__()
        time.sleep(4)  # the loop is held: the engine ends its work and waits, and nobody reads it
        return [first, *[output async for output in stream]]

    with started(slow=0.01, step_timeout=2.5) as process:
        time.sleep(4)
        assert len(ids_of(asyncio.run(begin(process)))) == 100
        time.sleep(4)
        assert process.num_restarts == 0 and process.alive


def test_a_step_timeout_that_idle_rounds_would_exceed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the step timeout is 1 s; it must be more than 2 s"):
        tiny_process(step_timeout=1)


def test_adapters_are_loaded_and_dropped_over_there_and_loaded_again_after_a_death(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "sql", draw_parts(weights(), 1, rank=2, size=1.5), rank=2)
    here = tiny_model()
    here.load_adapter("sql", folder)
    request = greedy(PROMPT, 12, adapter="sql")
    expected = ids_of(here.generate([request])[0])
    assert expected != ids_of(here.generate([greedy(PROMPT, 12)])[0])
    with started() as process:
        view = process.view(None, None)  # type: ignore[arg-type]

        async def load() -> None:
            with pytest.raises(InputError, match=r"adapter_config\.json"):
                await process.load_adapter("poem", tmp_path / "nowhere")
            await process.load_adapter("sql", folder)
            await process.load_adapter("gone", folder)
            await process.unload_adapter("gone")
            with pytest.raises(InputError, match='"sql" is loaded already'):
                await process.load_adapter("sql", folder)
            assert ids_of(await collect(process, request)) == expected

        asyncio.run(load())
        assert view.adapters.names == ("sql",) and view.adapters.find("sql").path == folder
        assert process._child is not None
        process._child.kill()
        wait_until(lambda: process.num_restarts == 1 and process.alive, 30)
        assert ids_of(asyncio.run(collect(process, request))) == expected
        assert view.adapters.names == ("sql",)


def test_a_step_that_fails_says_why_and_is_not_the_end() -> None:
    with started(breaks=4) as process:

        async def broken() -> None:
            with pytest.raises(RestartingError, match="the decoder broke"):
                await collect(process, greedy(PROMPT, 50))

        asyncio.run(broken())
        wait_until(lambda: process.num_restarts == 1 and process.alive, 30)
        assert len(ids_of(asyncio.run(collect(process, greedy(PROMPT, 2))))) == 2


def test_a_model_that_cannot_be_loaded_is_the_users_error() -> None:
    gc.collect()  # sockets of other tests are closed before they are counted
    num_open = len([*Path("/proc/self/fd").iterdir()])
    process = tiny_process(num_pages=64, max_context=120, page_size=0)
    with pytest.raises(ServeError, match="page"):
        process.wait()
    process.close()
    missing = EngineProcess({"path": "/nowhere/model.gguf"}, say=lambda _: None)
    with pytest.raises(InputError, match="nowhere"):
        missing.wait()
    missing.close()
    assert len([*Path("/proc/self/fd").iterdir()]) <= num_open


def test_closing_ends_the_process_and_those_that_wait() -> None:
    process = tiny_process()
    process.wait()
    child = process._child
    assert child is not None

    async def closing() -> None:
        task = asyncio.create_task(collect(process, greedy(PROMPT, 110)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(process.close)
        with pytest.raises(ServeError, match="the engine has stopped"):
            await task

    asyncio.run(closing())
    assert child.returncode == 0
    with pytest.raises(ServeError, match="has stopped"):
        process.check()
    early = tiny_process()
    early.close()
    assert early._child is None or early._child.returncode is not None


ORPHAN = """
    import sys, time
    sys.path.insert(0, "")
    from tests.serve.tiny_backend import tiny_process
    process = tiny_process(slow=0.05)
    process.wait()
    print(process._child.pid, flush=True)
    time.sleep(60)
"""


def test_the_engine_dies_with_its_server() -> None:
    command = [sys.executable, "-c", textwrap.dedent(ORPHAN)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        child = int(server.stdout.readline())
        server.kill()

    def gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{child}/stat")
        return state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z"

    wait_until(gone)


# ---------------------------------------------------------------------------------------------------- the frames


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(1, 50))
def test_messages_arrive_whatever_the_pieces(names: list[str], piece: int) -> None:
    here, there = socket.socketpair()
    wire, relay = socket.socketpair()
    with here, there, wire, relay:
        sender: Channel[ServerMessage] = Channel(here, ServerMessage)
        receiver: Channel[ServerMessage] = Channel(relay, ServerMessage)
        for name in names:
            sender.send(Cancel(name))
        here.shutdown(socket.SHUT_WR)
        found: list[ServerMessage] = []
        while data := there.recv(piece):
            wire.sendall(data)
            found += receiver.receive()
        wire.close()
        with pytest.raises(EOFError):
            receiver.receive()
    assert found == [Cancel(name) for name in names]


def test_what_the_socket_does_not_take_is_sent_later() -> None:
    here, there = socket.socketpair()
    with here, there:
        sender: Channel[ServerMessage] = Channel(here, ServerMessage)
        receiver: Channel[ServerMessage] = Channel(there, ServerMessage)
        large = [Cancel("x" * 300_000), Cancel("y" * 300_000)]
        for message in large:
            sender.send(message)
        assert sender.waits
        found: list[ServerMessage] = []
        while len(found) < 2:
            found += receiver.receive()
            sender.flush()
        assert found == large and not sender.waits
