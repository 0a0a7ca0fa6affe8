"""Floor 6, OpenTelemetry: spans to whatever takes OTLP over HTTP, with vLLM's names of the attributes of an answer.

Everything but the endpoint is set by OpenTelemetry's own variables (`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`,
`OTEL_EXPORTER_OTLP_HEADERS`, ...), which its library reads. Knows no HTTP server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from highrise.core.errors import ConfigError
from highrise.core.progress import say
from highrise.serve.tracing import AnswerFacts

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

__all__ = ["OtlpSpans", "open_spans"]

_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PATH = "/v1/traces"
_REMEDY = 'install the extra: pip install "highrise[telemetry]"'


def open_spans(endpoint: str | None = None) -> OtlpSpans | None:
    """Spans to `endpoint`, or where OpenTelemetry's variables say; None when nobody asked for them.

    `ConfigError` when an endpoint was given that is no URL, or the library is not installed; when only a variable asks,
    its absence is said and nothing is traced.
    """
    asked = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if endpoint is None and asked is None:
        return None
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f'"{endpoint}" is no endpoint for traces; give a URL such as http://localhost:4318')
        endpoint = endpoint if parts.path.strip("/") else endpoint.rstrip("/") + _PATH
    try:
        return OtlpSpans(endpoint)
    except ModuleNotFoundError as error:
        if endpoint is not None:
            raise ConfigError(f"traces cannot be sent without {error.name}; {_REMEDY}") from error
        say(f"{asked} is set, but no trace is sent without {error.name}; {_REMEDY}")
        return None


class OtlpSpans:
    """Sends spans in batches from a thread of its own; None as the endpoint leaves it to the variables."""

    def __init__(self, endpoint: str | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = os.environ.get("OTEL_SERVICE_NAME")
        resource = Resource.create(None if named else {"service.name": "highrise"})
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("highrise.serve")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> _OtlpSpan:
        """A request arrived; its trace is the client's when its headers name one."""
        from opentelemetry.trace import SpanKind

        carrier = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in headers
            if name.lower() in (b"traceparent", b"tracestate")
        }
        context = self._propagator.extract(carrier) if carrier else None
        facts = {"http.request.method": method, "url.path": path}
        span = self._tracer.start_span(f"{method} {path}", context=context, kind=SpanKind.SERVER, attributes=facts)
        return _OtlpSpan(self._tracer, span)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _OtlpSpan:
    """One HTTP request."""

    def __init__(self, tracer: Any, span: Span) -> None:
        self._tracer = tracer
        self._span = span

    def answer(self, facts: AnswerFacts) -> None:
        """vLLM's `llm_request`."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        end = time.time_ns()
        below = self._tracer.start_span(
            "llm_request",
            context=set_span_in_context(self._span),
            kind=SpanKind.INTERNAL,
            start_time=end - int(facts.seconds * 1e9),
            attributes={name: value for name, value in _attributes(facts).items() if value is not None},
        )
        below.end(end_time=end)

    def end(self, status: int) -> None:
        """The request was answered."""
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _attributes(facts: AnswerFacts) -> dict[str, str | int | float | tuple[str, ...] | None]:
    queue, first = facts.queue_seconds, facts.first_token_seconds
    known = queue is not None and first is not None
    return {
        "gen_ai.request.id": facts.request_id,
        "gen_ai.request.max_tokens": facts.max_tokens,
        "gen_ai.request.n": facts.num_choices,
        "gen_ai.request.temperature": facts.temperature,
        "gen_ai.request.top_p": facts.top_p,
        "gen_ai.response.finish_reasons": (facts.finish_reason,),
        "gen_ai.response.model": facts.model,
        "gen_ai.usage.prompt_tokens": facts.prompt_tokens,
        "gen_ai.usage.cached_tokens": facts.cached_tokens,
        "gen_ai.usage.completion_tokens": facts.generated_tokens,
        "gen_ai.latency.e2e": facts.seconds,
        "gen_ai.latency.time_in_queue": queue,
        "gen_ai.latency.time_to_first_token": first,
        "gen_ai.latency.time_in_model_prefill": (first or 0.0) - (queue or 0.0) if known else None,
        "gen_ai.latency.time_in_model_decode": None if first is None else facts.seconds - first,
        "gen_ai.latency.time_in_model_inference": facts.seconds - (queue or 0.0) if known else None,
    }
