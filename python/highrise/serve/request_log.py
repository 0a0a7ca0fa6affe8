"""Floor 6, request log: one line a request, for people or for programs.

An ASGI application around another: times, sizes and status it sees itself, token counts it is told (`note`) by whatever
answers below. Never writes a word of a prompt or an answer.
"""

from __future__ import annotations

import contextvars
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from highrise.serve.gate import PROBES

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LogFormat", "RequestLog", "note"]

LogFormat = Literal["none", "text", "json"]

_notes: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar("highrise_request_notes", default=None)


def note(*, prompt_tokens: int, cached_tokens: int, generated_tokens: int, finish_reason: str) -> None:
    """Tell the line of this request what was computed; several answers of one request add up."""
    notes = _notes.get()
    if notes is None:
        return
    for name, value in (
        ("prompt_tokens", prompt_tokens),
        ("cached_tokens", cached_tokens),
        ("generated_tokens", generated_tokens),
    ):
        notes[name] = notes.get(name, 0) + value
    notes.setdefault("finish_reasons", []).append(finish_reason)


class RequestLog:
    """Writes the lines; `write` gets each without its line end. Probes and scrapes that succeed are left out."""

    def __init__(self, app: ASGIApp, form: LogFormat, write: Callable[[str], None] | None = None) -> None:
        self._app = app
        self._form = form
        self._write = write or _print

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on and watch."""
        kind: str = scope["type"]
        if kind != "http":
            await self._app(scope, receive, send)
            return
        line = _Line(scope)
        token = _notes.set(line.notes)

        async def watched(message: Message) -> None:
            line.see(message)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            _notes.reset(token)
            if line.status >= 400 or scope["path"] not in PROBES:
                self._write(line.json() if self._form == "json" else line.text())


class _Line:
    """What one request did so far."""

    def __init__(self, scope: Scope) -> None:
        self.notes: dict[str, Any] = {}
        self.status = 499  # the client left before anything was answered
        self._scope = scope
        self._started = time.perf_counter()
        self._when = datetime.now(UTC)
        self._first: float | None = None
        self._bytes = 0
        self._id = ""

    def see(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            self._id = headers.get(b"x-request-id", b"").decode("latin-1")
        elif message["type"] == "http.response.body" and (size := len(message.get("body", b""))):
            self._bytes += size
            if self._first is None:
                self._first = time.perf_counter() - self._started

    def fields(self) -> dict[str, Any]:
        """Every value; times are seconds."""
        client = self._scope.get("client")
        return {
            "time": self._when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "id": self._id,
            "client": client[0] if client else "",
            "method": str(self._scope.get("method", "")),
            "path": self._scope["path"],
            "status": self.status,
            "seconds": round(time.perf_counter() - self._started, 4),
            "first_byte_seconds": None if self._first is None else round(self._first, 4),
            "bytes": self._bytes,
            **self.notes,
        }

    def json(self) -> str:
        return msgspec.json.encode(self.fields()).decode()

    def text(self) -> str:
        fields = self.fields()
        tokens = ""
        if "prompt_tokens" in fields:
            tokens = (
                f" {fields['prompt_tokens']} tokens ({fields['cached_tokens']} cached) -> {fields['generated_tokens']}"
                f" ({', '.join(fields['finish_reasons'])})"
            )
        path = fields["path"].encode("unicode_escape").decode()  # a path may hold line ends
        who = f"{fields['time']} {fields['client']} {fields['method']} {path}"
        return f"{who} {self.status} {fields['seconds']:.3f} s{tokens}"


def _print(line: str) -> None:
    print(line, file=sys.stdout, flush=True)
