"""Floor 6, gate: counts the requests inside, and while the server drains lets no new one in.

An ASGI application around another. Requests that are inside finish; new ones get 503 with Retry-After, and so does the
health check, so that a load balancer looks elsewhere. Knows nothing of what is inside.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from highrise.serve.answers import JsonAnswer
from highrise.serve.protocol import ApiError

if TYPE_CHECKING:
    from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["ALIVE", "PROBES", "READY", "Gate"]

ALIVE = "/livez"
"""Answers as long as the server runs, whatever the engine does: who restarts a server should look here."""
READY = ("/healthz", "/health", "/readyz")
"""Answer when requests can be answered: who sends requests should look here."""
PROBES = frozenset({"/metrics", ALIVE, *READY})
_STAYS_OPEN = frozenset({"/metrics", ALIVE})
_RETRY_SECONDS = "5"


class Gate:
    """`in_flight` requests are inside; `drain` closes it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.in_flight = 0
        self.draining = False
        self._left = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in, or refuse."""
        kind: str = scope["type"]
        if kind != "http":
            await self._app(scope, receive, send)
            return
        if self.draining and scope["path"] not in _STAYS_OPEN:
            await _refusal()(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1
            self._left.set()

    async def drain(self, seconds: float) -> int:
        """Let nobody in and wait until everybody left, at most `seconds`; returns how many are still inside."""
        self.draining = True
        end = asyncio.get_running_loop().time() + seconds
        while self.in_flight and (rest := end - asyncio.get_running_loop().time()) > 0:
            self._left.clear()
            try:
                await asyncio.wait_for(self._left.wait(), rest)
            except TimeoutError:
                break
        return self.in_flight


def _refusal() -> JsonAnswer:
    error = ApiError(
        "The server is about to stop and takes no new requests; ask another, or try again soon.",
        status=503,
        type="server_error",
        code="draining",
    )
    return JsonAnswer(error.body(), status=503, headers={"retry-after": _RETRY_SECONDS, "connection": "close"})
