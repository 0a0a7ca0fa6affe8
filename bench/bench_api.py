"""HTTP over the engine called directly: time to the first token, tokens streamed a second, same model, same prompt.

The server is a process of its own, as in use; the client reads raw server-sent events. Equal text comes first.
`api-wire` is the server alone, over an engine that costs nothing: what a request and a streamed token cost at most.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.serve.listening import served

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError

MODEL = "smollm2-135m"
THREADS = 2
PROMPT = "def fibonacci(n: int) -> int:\n    "
TOKENS = 64
ENGINES = ("process", "thread")


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        path = locate(MODEL)
    except HighriseError as error:
        pytest.skip(str(error))
    from highrise.serve.engine import Engine

    return Engine.load(path, weights="int4", threads=THREADS)


@pytest.fixture(scope="module")
def ports(engine: Any) -> Iterator[dict[str, int]]:
    """A server with the engine in a process of its own, and one with it in a thread."""
    with contextlib.ExitStack() as stack:
        flags = ["--weights", "int4", "--threads", str(THREADS), "--engine"]
        urls = {kind: stack.enter_context(served(MODEL, *flags, kind))[0] for kind in ENGINES}
        yield {kind: int(url.rsplit(":", 1)[1]) for kind, url in urls.items()}


def _directly(engine: Any, tokens: int) -> str:
    from highrise.serve.request import Request, Sampling

    ids = engine.tokenizer.encode(PROMPT)
    engine.add(Request(prompt_ids=ids, sampling=Sampling(temperature=0, max_tokens=tokens, ignore_eos=True)))
    text = ""
    while engine.has_work:
        text += "".join(output.text for output in engine.step())
    return text


class Client:
    """A bare socket: what is measured is the server, not Python's HTTP client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, tokens: int) -> bytes:
        """The raw answer, from sending to the last byte."""
        wanted = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
        body = json.dumps(wanted).encode()
        self._socket.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        )
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += self._socket.recv(1 << 16)
        return answer

    def text(self, tokens: int) -> str:
        """The answer's text."""
        lines = self.ask(tokens).split(b"\n")
        return "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith(b"data: {"))


@pytest.mark.parametrize("tokens", [1, TOKENS], ids=["first-token", "stream"])
@pytest.mark.parametrize("who", ["directly", *ENGINES])
def test_api(benchmark: Any, engine: Any, ports: dict[str, int], who: str, tokens: int) -> None:
    if who == "directly":
        run: Callable[[], object] = lambda: _directly(engine, tokens)  # noqa: E731
    else:
        client = Client(ports[who])
        assert client.text(tokens) == _directly(engine, tokens)
        run = lambda: client.ask(tokens)  # noqa: E731
    benchmark.extra_info = {
        "path": "api-first-token" if tokens == 1 else "api-stream",
        "who": "the engine directly" if who == "directly" else f"highrise over HTTP, engine in a {who}",
        "amount": tokens,
        "unit": "tokens",
    }
    benchmark.pedantic(run, rounds=20 if tokens == 1 else 5, warmup_rounds=1)


@pytest.mark.parametrize("tokens", [1, TOKENS], ids=["first-token", "stream"])
def test_overhead_paired(benchmark: Any, engine: Any, ports: dict[str, int], tokens: int) -> None:
    """All taken in turn, so that whatever else the machine does hits each; the medians' differences are kept."""
    clients = {kind: Client(port) for kind, port in ports.items()}
    runs: dict[str, Callable[[], object]] = {"engine": lambda: _directly(engine, tokens)}
    runs |= {kind: functools.partial(client.ask, tokens) for kind, client in clients.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(40 if tokens == 1 else 5):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    least = {name: min(seconds) for name, seconds in times.items()}
    benchmark.extra_info = {
        "path": "api-first-token-paired" if tokens == 1 else "api-stream-paired",
        "who": "highrise over HTTP, engine in a process",
        "amount": tokens,
        "unit": "tokens",
        "engine_us": round(medians["engine"] * 1e6),
        **{f"{kind}_overhead_us": round((medians[kind] - medians["engine"]) * 1e6) for kind in ENGINES},
        **{f"{kind}_overhead_of_least_us": round((least[kind] - least["engine"]) * 1e6) for kind in ENGINES},
    }
    benchmark.pedantic(runs["process"], rounds=5)


@pytest.mark.parametrize("tokens", [1, 512], ids=["request", "stream"])
def test_wire(benchmark: Any, tokens: int) -> None:
    from tests.serve.listening import listening
    from tests.serve.scripted import scripted_backend

    from highrise.serve.http import serve_app

    with listening(serve_app(scripted_backend("x" * tokens, max_context=10_000))) as url:
        client = Client(int(url.rsplit(":", 1)[1]))
        assert client.text(tokens) == "x" * tokens
        benchmark.extra_info = {
            "path": "api-wire-request" if tokens == 1 else "api-wire-stream",
            "who": "highrise over HTTP",
            "amount": tokens,
            "unit": "tokens",
        }
        benchmark.pedantic(lambda: client.ask(tokens), rounds=30 if tokens == 1 else 5, warmup_rounds=2)
