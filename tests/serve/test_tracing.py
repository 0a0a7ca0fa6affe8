"""OpenTelemetry spans, read by a receiver of OTLP over HTTP that decodes what arrives."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from highrise.core.errors import ConfigError
from highrise.serve.adapters import opentelemetry
from highrise.serve.adapters.opentelemetry import open_spans
from highrise.serve.http import serve_app
from highrise.serve.tracing import Traced, current_span
from tests.serve.listening import HTTP, listening
from tests.serve.tiny_backend import tiny_backend

pb2 = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """An address that takes traces, and the requests that it took."""
    taken: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
            request = pb2.ExportTraceServiceRequest()
            request.ParseFromString(body)
            taken.append(request)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def spans_of(taken: list[Any]) -> list[Any]:
    return [
        span for one in taken for group in one.resource_spans for scope in group.scope_spans for span in scope.spans
    ]


def facts_of(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def ask_traced(endpoint: str, ask: Any) -> None:
    spans = open_spans(endpoint)
    assert spans is not None
    backend = tiny_backend()
    try:
        with listening(Traced(serve_app(backend), spans)) as url:  # type: ignore[arg-type]
            ask(url)
    finally:
        backend.runner.close()
        spans.close()


def test_a_request_is_a_span_in_the_clients_trace_and_each_answer_one_below() -> None:
    body = {"prompt": "Hello", "max_tokens": 7, "ignore_eos": True, "temperature": 0.5, "top_p": 0.9, "n": 2}

    def ask(url: str) -> None:
        HTTP.get(f"{url}/healthz")
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        assert HTTP.post(f"{url}/v1/completions", json=body, headers=headers).status_code == 200

    with receiver() as (endpoint, taken):
        ask_traced(endpoint, ask)
        spans = spans_of(taken)
        service = {one.key: one.value.string_value for one in taken[0].resource_spans[0].resource.attributes}
    assert service["service.name"] == "highrise"
    (outer,) = [span for span in spans if span.name == "POST /v1/completions"]
    answers = [span for span in spans if span.name == "llm_request"]
    assert len(spans) == 3 and len(answers) == 2
    assert outer.trace_id.hex() == TRACE and outer.parent_span_id.hex() == PARENT
    assert facts_of(outer)["http.response.status_code"] == 200
    for span in answers:
        facts = facts_of(span)
        assert span.trace_id == outer.trace_id and span.parent_span_id == outer.span_id
        assert outer.start_time_unix_nano <= span.start_time_unix_nano + 2_000_000
        assert span.end_time_unix_nano <= outer.end_time_unix_nano
        assert (facts["gen_ai.usage.prompt_tokens"], facts["gen_ai.usage.completion_tokens"]) == (5, 7)
        assert (facts["gen_ai.request.temperature"], facts["gen_ai.request.top_p"]) == (0.5, 0.9)
        assert (facts["gen_ai.request.max_tokens"], facts["gen_ai.request.n"]) == (7, 2)
        assert facts["gen_ai.response.model"] == "tiny"
        queue, first, whole = (
            facts[f"gen_ai.latency.{name}"] for name in ("time_in_queue", "time_to_first_token", "e2e")
        )
        assert 0 <= queue <= first <= whole
        assert facts["gen_ai.latency.time_in_model_prefill"] == pytest.approx(first - queue)
        assert facts["gen_ai.latency.time_in_model_decode"] == pytest.approx(whole - first)
        assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(whole, abs=1e-3)


def test_streams_refusals_and_clients_that_leave_are_spans_too() -> None:
    body = {"prompt": "Hello", "max_tokens": 100, "ignore_eos": True, "stream": True}

    def ask(url: str) -> None:
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            assert sum(line.startswith("data: ") for line in answer.iter_lines()) > 50
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            next(answer.iter_raw())
        assert HTTP.post(f"{url}/v1/completions", json={"prompt": ""}).status_code == 400

    with receiver() as (endpoint, taken):
        ask_traced(endpoint, ask)
        spans = spans_of(taken)
    reasons = [facts_of(span)["gen_ai.response.finish_reasons"] for span in spans if span.name == "llm_request"]
    assert [one.values[0].string_value for one in reasons] == ["length", "abort"]
    states = [facts_of(span)["http.response.status_code"] for span in spans if span.name != "llm_request"]
    assert sorted(states) == [200, 200, 400]


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in opentelemetry._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert open_spans() is None and current_span() is None


def test_the_variable_alone_switches_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (endpoint, taken):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
        spans = open_spans()
        assert spans is not None
        spans.begin("GET", "/v1/models", []).end(200)
        spans.close()
    assert [span.name for span in spans_of(taken)] == ["GET /v1/models"]
    service = {one.key: one.value.string_value for one in taken[0].resource_spans[0].resource.attributes}
    assert service["service.name"] == "ours"


def test_what_is_no_endpoint_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="is no endpoint for traces"):
        open_spans("localhost:4318")


def test_without_the_library_a_variable_is_said_and_a_flag_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: str | None) -> None:
        raise ModuleNotFoundError("No module named 'opentelemetry'", name="opentelemetry")

    monkeypatch.setattr(opentelemetry, "OtlpSpans", absent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    assert open_spans() is None
    assert "no trace is sent without opentelemetry" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="install the extra"):
        open_spans("http://localhost:4318")
