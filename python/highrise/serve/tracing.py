"""Floor 6, tracing: one span an HTTP request and one below it for each answer that an engine gave.

An ASGI application around another opens the first, with the trace that the client's `traceparent` names; whatever
answers below adds the others (`current_span`). Knows no tracing system: `serve/adapters/opentelemetry.py` is one. Off,
it costs the look at one variable an answer.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import msgspec

from highrise.serve.gate import PROBES

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["AnswerFacts", "RequestSpan", "Spans", "Traced", "current_span"]


class AnswerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one answer was; times are seconds."""

    request_id: str
    model: str
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    finish_reason: str
    seconds: float
    """From arrival to the end, which is now."""
    first_token_seconds: float | None
    queue_seconds: float | None
    temperature: float
    top_p: float
    max_tokens: int | None
    num_choices: int


class RequestSpan(Protocol):
    """The span of one HTTP request."""

    def answer(self, facts: AnswerFacts) -> None:
        """A span below it, of an answer that just ended."""

    def end(self, status: int) -> None:
        """The request was answered with this HTTP status (499: the client left before)."""


class Spans(Protocol):
    """Where spans go."""

    def begin(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> RequestSpan:
        """A request arrived."""

    def close(self) -> None:
        """Send what is left."""


_span: contextvars.ContextVar[RequestSpan | None] = contextvars.ContextVar("highrise_request_span", default=None)


def current_span() -> RequestSpan | None:
    """The span of the request that is being answered; None when nobody traces."""
    return _span.get()


class Traced:
    """An application whose requests are spans; probes and scrapes are none."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app = app
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on and watch."""
        kind: str = scope["type"]
        if kind != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        span = self._spans.begin(str(scope.get("method", "")), scope["path"], scope["headers"])
        token = _span.set(span)
        status = 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _span.reset(token)
            span.end(status)
