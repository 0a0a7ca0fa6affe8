"""Running a server: the request log, draining at SIGTERM, deadlines, a dead engine, the dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from highrise.serve.engine_backend import EngineBackend
from highrise.serve.gate import Gate
from highrise.serve.http import serve_app
from highrise.serve.request_log import RequestLog
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import scripted_backend
from tests.serve.tiny_backend import tiny_backend


@pytest.fixture
def backend() -> Iterator[EngineBackend]:
    backend = tiny_backend()
    yield backend
    backend.runner.close()


def lines_of(backend: EngineBackend, form: Any, ask: Any) -> list[str]:
    written: list[str] = []
    with listening(RequestLog(serve_app(backend), form, written.append)) as address:  # type: ignore[arg-type]
        ask(address)
        deadline = time.monotonic() + 5
        while not written and time.monotonic() < deadline:
            time.sleep(0.01)
    return written


def test_a_line_of_json_a_request(backend: EngineBackend) -> None:
    def ask(url: str) -> None:
        HTTP.get(f"{url}/healthz")
        HTTP.get(f"{url}/metrics")
        body = {"prompt": "A secret prompt", "max_tokens": 5, "ignore_eos": True, "n": 2}
        HTTP.post(f"{url}/v1/completions", json=body, headers={"x-request-id": "mine"})
        HTTP.post(f"{url}/v1/completions", json={**body, "stream": True})
        HTTP.post(f"{url}/v1/completions", json={"prompt": ""})

    whole, streamed, refused = (json.loads(line) for line in lines_of(backend, "json", ask))
    assert (whole["id"], whole["method"], whole["path"], whole["status"]) == ("mine", "POST", "/v1/completions", 200)
    assert (whole["prompt_tokens"], whole["generated_tokens"]) == (30, 10)
    assert whole["finish_reasons"] == ["length", "length"]
    assert whole["client"] == "127.0.0.1" and whole["bytes"] > 100
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", whole["time"])
    assert 0 < streamed["first_byte_seconds"] <= streamed["seconds"]
    assert streamed["generated_tokens"] == 10
    assert refused["status"] == 400 and "prompt_tokens" not in refused
    assert "secret" not in json.dumps([whole, streamed, refused])


def test_a_line_for_people(backend: EngineBackend) -> None:
    def ask(url: str) -> None:
        HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 3, "ignore_eos": True})
        HTTP.get(f"{url}/nowhere%0Aforged%20line")

    lines = lines_of(backend, "text", ask)
    assert re.search(
        r" 127\.0\.0\.1 POST /v1/completions 200 \d+\.\d{3} s 2 tokens \(0 cached\) -> 3 \(length\)$", lines[0]
    )
    assert "\n" not in lines[1] and " 404 " in lines[1]


def test_a_client_that_left_is_in_the_log() -> None:
    def ask(url: str) -> None:
        with httpx.stream("POST", f"{url}/v1/completions", json={"prompt": "a", "stream": True}) as answer:
            next(answer.iter_raw())

    (line,) = lines_of(scripted_backend("x" * 100, delay=0.02), "json", ask)
    assert json.loads(line)["finish_reasons"] == ["abort"]


def test_a_closed_gate_lets_requests_finish_and_no_new_ones_in() -> None:
    backend = scripted_backend("0123456789", delay=0.05)
    gate = Gate(serve_app(backend))
    answers: list[httpx.Response] = []
    with listening(gate) as url:  # type: ignore[arg-type]
        inside = threading.Thread(
            target=lambda: answers.append(HTTP.post(f"{url}/v1/completions", json={"prompt": "a"}))
        )
        inside.start()
        while not gate.in_flight:
            time.sleep(0.01)
        gate.draining = True
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": "a"})
        assert httpx.get(f"{url}/healthz").status_code == 503
        assert httpx.get(f"{url}/metrics").status_code == httpx.get(f"{url}/livez").status_code == 200
        inside.join(10)
        assert asyncio.run(gate.drain(1)) == 0
    assert answers[0].json()["choices"][0]["text"] == "0123456789"
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert refused.json()["error"]["code"] == "draining"


SERVER = """
    import sys
    from highrise.serve.http import serve_app
    from highrise.serve.server import address_of, bind, run_app
    from tests.serve.scripted import scripted_backend

    listener = bind("127.0.0.1", 0)
    print(address_of(listener), flush=True)
    app = serve_app(scripted_backend("0123456789", delay=float(sys.argv[2])))
    run_app(app, listener, drain_seconds=float(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("seconds", "delay", "text"), [(20, 0.1, "0123456789"), pytest.param(0.3, 1, "", marks=pytest.mark.slow)]
)
def test_sigterm_drains(seconds: float, delay: float, text: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SERVER), str(seconds), str(delay)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stderr is not None
        url = server.stdout.readline().strip()
        deadline = time.monotonic() + 20
        while True:
            try:
                httpx.get(f"{url}/healthz")
                break
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        said = ""
        try:
            with httpx.stream("POST", f"{url}/v1/completions", json={"prompt": "a", "stream": True}) as answer:
                for number, line in enumerate(answer.iter_lines()):
                    if number == 0:
                        server.send_signal(signal.SIGTERM)
                        time.sleep(0.1)
                        assert httpx.post(f"{url}/v1/completions", json={"prompt": "a"}).status_code == 503
                    if line.startswith("data: {"):
                        said += json.loads(line[6:])["choices"][0]["text"]
        except httpx.HTTPError:
            said = ""
        assert said == text
        assert server.wait(20) == 0
        assert "draining: 1 requests may finish" in server.stderr.read()


def test_an_answer_that_takes_too_long_ends_as_it_is() -> None:
    with listening(serve_app(scripted_backend("0123456789", delay=0.1))) as url:
        answer = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "timeout": 0.45}).json()
        nothing = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "timeout": 0.01})
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert "0123456789".startswith(choice["text"]) and 1 <= len(choice["text"]) <= 4
    assert nothing.status_code == 504
    assert nothing.json()["error"]["code"] == "deadline_exceeded"


def test_the_server_has_a_limit_of_its_own_and_late_answers_free_their_pages() -> None:
    backend = tiny_backend()
    backend._generation._answer_seconds = 0.05
    try:
        with listening(serve_app(backend)) as url:
            body = {"prompt": "a", "max_tokens": 118, "ignore_eos": True, "timeout": 60, "n": 8}
            answer = HTTP.post(f"{url}/v1/completions", json=body)
            assert answer.status_code in (200, 504)
            deadline = time.monotonic() + 5
            while backend.runner.stats().num_running:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        stats = backend.runner.stats()
        assert stats.num_free_pages == stats.num_pages
    finally:
        backend.runner.close()


def test_a_dead_engine_is_503_for_those_in_flight_and_those_that_come() -> None:
    backend = tiny_backend()

    def breaks() -> Any:
        raise RuntimeError("the decoder broke")

    with listening(serve_app(backend)) as url:
        backend.runner.engine.step = breaks  # type: ignore[method-assign]
        body = {"prompt": "a", "max_tokens": 5}
        assert all(HTTP.get(f"{url}{path}").status_code == 200 for path in ("/livez", "/readyz", "/health"))
        for _ in range(2):
            refused = HTTP.post(f"{url}/v1/completions", json=body)
            assert refused.status_code == 503, refused.text
            assert refused.json()["error"]["code"] == "engine_stopped"
        assert all(HTTP.get(f"{url}{path}").status_code == 503 for path in ("/healthz", "/readyz", "/health"))
        assert HTTP.get(f"{url}/livez").status_code == 200, "the server itself need not be started again"


def test_counts_of_the_engine_are_told_once() -> None:
    with listening(serve_app(scripted_backend("x"))) as url:
        for _ in range(2):
            page = HTTP.get(f"{url}/metrics").text
    for line in ("num_preemptions_total 2.0", "spec_decode_num_draft_tokens_total 8.0", "accepted_tokens_total 5.0"):
        name, value = line.split()
        assert re.search(rf"{name}{{[^}}]*}} {value}$", page, flags=re.MULTILINE), line


def test_every_metric_of_the_dashboard_exists(backend: EngineBackend) -> None:
    dashboard = json.loads((Path(__file__).parents[2] / "docs" / "grafana" / "serve.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ()))
    names = set(re.findall(r"(?:vllm|highrise):\w+", asked))
    assert len(names) >= 17
    with listening(serve_app(backend)) as url:
        HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 3})
        page = HTTP.get(f"{url}/metrics").text
    offered = set(re.findall(r"^((?:vllm|highrise):\w+)", page, flags=re.MULTILINE))
    assert names <= offered, names - offered
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie on each other"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)
