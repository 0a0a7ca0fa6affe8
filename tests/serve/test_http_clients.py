"""Clients that misbehave: slow, silent, gone at any byte, large. Nothing leaks, and all others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.runner import EngineRunner
from tests.serve.listening import HTTP, listening
from tests.serve.tiny_backend import Alphabet, process_backend, tiny_backend, tiny_process


@pytest.fixture(scope="module")
def backend() -> Iterator[EngineBackend]:
    backend = tiny_backend()
    yield backend
    backend.runner.close()


@pytest.fixture(scope="module")
def url(backend: EngineBackend) -> Iterator[str]:
    with listening(serve_app(backend), request_timeout=1.0) as address:
        yield address


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def request_bytes(path: str = "/v1/completions", **fields: object) -> bytes:
    body = json.dumps({"prompt": "Hi there", "max_tokens": 60, "ignore_eos": True, **fields}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def nothing_leaks(backend: EngineBackend) -> None:
    """Waits for the engine's thread and for the server's, which learns of the last outputs a little later."""
    deadline = time.monotonic() + 10
    while True:
        stats, in_flight = backend.runner.stats(), backend._generation.in_flight
        if not (stats.num_running or stats.num_waiting or in_flight) and stats.num_free_pages == stats.num_pages:
            break
        assert time.monotonic() < deadline, (stats, in_flight)
        time.sleep(0.02)
    backend.runner.check()
    if isinstance(backend.runner, EngineRunner):
        backend.runner.engine.cache.check()


@pytest.mark.parametrize("stream", [False, True])
def test_clients_that_leave_at_any_byte(
    url: str, backend: EngineBackend, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """While they send, and while they read; neither is a fault that an operator should be told of."""
    whole = request_bytes(stream=stream)
    random.seed(1)
    for _ in range(30):
        with connected(url) as connection:
            connection.sendall(whole[: random.randrange(len(whole))])
    for _ in range(15):
        with connected(url) as connection:
            connection.sendall(whole)
            connection.recv(random.randrange(1, 3000))
    nothing_leaks(backend)
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []
    assert HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi"}).status_code == 200


def test_resets_in_the_middle_of_streams(url: str, backend: EngineBackend) -> None:
    for _ in range(10):
        with connected(url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close sends a reset
            connection.sendall(request_bytes(stream=True))
            connection.recv(1)
    nothing_leaks(backend)


def test_slow_lorises_are_closed_and_harm_nobody(url: str, backend: EngineBackend) -> None:
    """Some never finish their head, some never their body; both a byte at a time."""
    whole = request_bytes()
    ended: list[bytes] = []

    def drip(start: int) -> None:
        with connected(url) as connection:
            connection.sendall(whole[:start])
            with contextlib.suppress(OSError):
                for place in range(start, len(whole) - 1):
                    connection.sendall(whole[place : place + 1])
                    time.sleep(0.2)
            with contextlib.suppress(OSError):
                ended.append(connection.recv(100))

    threads = [threading.Thread(target=drip, args=(start,)) for start in [5] * 10 + [len(whole) - 50] * 10]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 2}).status_code == 200
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a slow client was not closed"
    assert any(b" 408 " in answer for answer in ended)
    nothing_leaks(backend)


def test_a_silent_connection_is_closed(url: str) -> None:
    with connected(url) as connection:
        assert connection.recv(1) == b""


def test_a_reader_that_stops_reading_does_not_stop_the_others(url: str, backend: EngineBackend) -> None:
    with connected(url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        connection.sendall(request_bytes(stream=True, n=8, logprobs=20))
        for _ in range(5):
            assert HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 3}).status_code == 200
    nothing_leaks(backend)


def test_a_slow_but_living_stream_is_left_alone(url: str) -> None:
    """The time to send a request ends with the request, not with its answer; the connection is used again."""
    with httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(2):
            body = {"prompt": "Hi", "max_tokens": 100, "ignore_eos": True}
            assert client.post("/v1/completions", json=body).json()["usage"]["completion_tokens"] == 100
            time.sleep(0.7)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a" * 60_000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 60_000}]}),
        ("/v1/embeddings", {"input": ["a" * 60_000]}),
        ("/tokenize", {"prompt": "a" * 60_000}),
    ],
)
def test_a_long_text_keeps_nobody_waiting(
    url: str, backend: EngineBackend, path: str, body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered = threading.Event(), threading.Event()

    def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(text: str, *rest: Any, **options: Any) -> Any:
            if len(text) > 50_000:
                begun.set()
                assert answered.wait(20)
            return function(text, *rest, **options)

        return run

    for name in ("encode", "count"):
        monkeypatch.setattr(Alphabet, name, staticmethod(slowly(getattr(backend.engine.tokenizer, name))))
    asking = threading.Thread(target=lambda: httpx.post(f"{url}{path}", json=body, timeout=30))
    asking.start()
    assert begun.wait(10)
    assert HTTP.get(f"{url}/healthz").status_code == 200
    answered.set()
    asking.join(30)
    assert not asking.is_alive()


@pytest.mark.parametrize("size", [10 << 20, (32 << 20) + 1])
def test_large_bodies(url: str, backend: EngineBackend, size: int) -> None:
    refused = httpx.post(f"{url}/v1/completions", content=json.dumps({"prompt": "a" * size}), timeout=60)
    assert refused.status_code == (413 if size > 32 << 20 else 400)
    error = refused.json()["error"]
    assert error["code"] == ("request_too_large" if size > 32 << 20 else "context_length_exceeded")
    nothing_leaks(backend)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"\x00" * 1000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["tls", "version", "length", "smuggling", "zeros", "url", "headers"],
)
def test_what_is_not_http_is_refused_or_closed(url: str, backend: EngineBackend, head: bytes) -> None:
    with connected(url) as connection, contextlib.suppress(OSError):
        connection.sendall(head)
        assert connection.recv(20).split(b" ")[1:2] in (
            [],
            [b"400"],
            [b"404"],
            [b"200"],
            [b"431"],
            [b"414"],
            [b"408"],
        )
    assert HTTP.get(f"{url}/healthz").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["thread", "process"])
def test_64_streams_for_a_minute_with_random_cancels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    if kind == "thread":
        backend = tiny_backend(max_waiting=128, max_running=16)
        streams_with_random_cancels(backend, ["self"], seconds=60)
    else:
        process = tiny_process(max_running=16)
        backend = process_backend(process, max_waiting=128)
        assert process._child is not None
        streams_with_random_cancels(backend, ["self", str(process._child.pid)], seconds=60)
        assert process.num_restarts == 0
    backend.runner.close()


def streams_with_random_cancels(backend: EngineBackend, processes: list[str], *, seconds: float) -> None:
    """Every answer that is not cancelled is whole, nothing leaks, and memory stays flat after the warm-up."""
    sizes: list[list[int]] = []
    counts = {"whole": 0, "cancelled": 0}

    async def client(url: str, number: int, end: float) -> None:
        draw = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=120) as http:
            while time.monotonic() < end:
                body = {"prompt": "Hi" * draw.randrange(1, 20), "max_tokens": draw.randrange(1, 60), "ignore_eos": True}
                leave_after = draw.choice([1000, 1000, 0, 2, 10])
                lines = 0
                async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        assert '"error"' not in line, line
                        lines += line.startswith("data:")
                        if lines > leave_after:
                            counts["cancelled"] += 1
                            break
                        counts["whole"] += line == "data: [DONE]"

    async def measure(end: float) -> None:
        while time.monotonic() < end:
            sizes.append([int(Path(f"/proc/{one}/statm").read_text().split()[1]) * 4096 for one in processes])
            await asyncio.sleep(1)

    async def everyone(url: str) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(measure(end), *(client(url, number, end) for number in range(64)))

    with listening(serve_app(backend)) as url:
        asyncio.run(everyone(url))
        nothing_leaks(backend)
    assert counts["whole"] > 64 and counts["cancelled"] > 64, counts
    for before, after in zip(sizes[len(sizes) // 3], sizes[-1], strict=True):
        grown = (after - before) / 2**20
        assert grown < 20, f"memory grew by {grown:.1f} MiB: {counts}"
    print(f"{counts}, MiB at a third and at the end: {sizes[len(sizes) // 3]}, {sizes[-1]}")
