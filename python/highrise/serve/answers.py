"""Floor 6, answers: the two ways in which an answer leaves the server, as plain ASGI applications.

`JsonAnswer` is one body; `EventStream` sends server-sent events as they come, keeps an idle connection open with
comments, and stops its source when the client goes away. Knows nothing of what is in the events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, TypeVar

from highrise.core.errors import HighriseError
from highrise.serve.protocol import ApiError

if TYPE_CHECKING:
    from litestar.types import Receive, Scope, Send

__all__ = ["DONE", "DisconnectedError", "EventStream", "JsonAnswer", "event", "explain", "unless_disconnected"]

T = TypeVar("T")

_log = logging.getLogger("highrise.serve")

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"


def event(data: bytes, name: str = "") -> bytes:
    """One server-sent event; `data` holds no line break."""
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"


def explain(error: Exception) -> ApiError:
    """Any error as a refusal: the user's own in its words, a fault of ours logged and answered with status 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HighriseError):
        if error.exit_code == 2:
            return ApiError(str(error))
        return ApiError(str(error), status=500, type="server_error")
    _log.error("a request failed", exc_info=error)
    return ApiError("The server failed while it answered; its log tells why.", status=500, type="server_error")


class DisconnectedError(Exception):
    """The client went away before its answer was ready."""


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work`, and cancel it when the client goes away; the request's body must have been read."""
    task = asyncio.current_task()
    assert task is not None
    gone = over = False

    def leave(watch: asyncio.Future[None]) -> None:
        nonlocal gone
        if over or watch.cancelled():  # a callback that is due already cannot be removed
            return
        gone = True
        watch.exception()
        task.cancel()

    watch = asyncio.ensure_future(_disconnect(receive))
    watch.add_done_callback(leave)
    try:
        return await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise DisconnectedError from None
        raise
    finally:
        over = True
        watch.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class JsonAnswer:
    """A body that is ready; `media_type` may name another kind of text."""

    def __init__(
        self,
        body: bytes,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        media_type: str = "application/json",
    ) -> None:
        self.body = body
        self.status = status
        self.headers = {"content-type": media_type, "content-length": str(len(body)), **(headers or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body."""
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class EventStream:
    """Server-sent events out of `source`. It begins with the first of them, or with the first comment.

    An error before that is the caller's to answer; later it becomes an event, and the stream ends.
    """

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        headers: dict[str, str] | None = None,
        keep_alive: float = 15.0,
    ) -> None:
        self.source = source
        self.keep_alive = keep_alive
        self.headers = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            **(headers or {}),
        }
        self._begun = False
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._comment: asyncio.Future[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every event; when the client goes away, close the source at once."""
        with contextlib.suppress(DisconnectedError):
            await unless_disconnected(receive, self._pump(send))

    async def _pump(self, send: Send) -> None:
        source = self.source
        self._last = asyncio.get_running_loop().time()
        self._stay_alive(send)
        try:
            async for data in source:
                await self._write(send, data)
        except Exception as error:
            if not self._begun:
                raise
            await self._write(send, event(explain(error).body()))
        finally:
            for waiting in (self._timer, self._comment):
                if waiting is not None:
                    waiting.cancel()
            if (close := getattr(source, "aclose", None)) is not None:
                with contextlib.suppress(RuntimeError):
                    await close()
        await self._write(send, b"", more=False)

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        self._last = asyncio.get_running_loop().time()
        if not self._begun:
            self._begun = True
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": more})

    def _stay_alive(self, send: Send) -> None:
        """Send a comment if nothing was sent for long, and look again when that may next be so."""
        # An ASGI server writes a message before it first yields, so a comment never lands inside an event.
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._last >= self.keep_alive and (self._comment is None or self._comment.done()):
            self._last = now
            self._comment = asyncio.ensure_future(self._write(send, _KEEP_ALIVE))
        self._timer = loop.call_at(max(self._last + self.keep_alive, now + 0.01), self._stay_alive, send)
