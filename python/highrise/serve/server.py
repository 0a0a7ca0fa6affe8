"""Floor 6, server: listens on a socket and runs an application on it with uvicorn until it is told to stop.

The socket is bound before anything is loaded, so that a port in use is found at once. Knows nothing of the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from highrise.core.errors import InputError
from highrise.core.progress import say
from highrise.serve.adapters.opentelemetry import open_spans
from highrise.serve.connection import PatientProtocol
from highrise.serve.gate import Gate
from highrise.serve.request_log import LogFormat, RequestLog
from highrise.serve.tracing import Traced

if TYPE_CHECKING:
    from litestar.types import ASGIApp

__all__ = ["address_of", "bind", "run_app", "server_config"]


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, port 0 for any free one; `InputError` when the port is taken or the address is not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} on {host} is in use; stop the program that listens there, or choose another with --port"
            ) from error
        raise InputError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_app(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None] | None = None,
    log_format: LogFormat = "none",
    drain_seconds: float = 30.0,
    traces_endpoint: str | None = None,
) -> None:
    """Serve `app` until SIGINT (streams in flight get three seconds) or SIGTERM (they get `drain_seconds`).

    Spans go to `traces_endpoint` or where OpenTelemetry's variables say (`serve/adapters/opentelemetry.py`), if at all.
    """
    spans = open_spans(traces_endpoint)
    gate = Gate(app if spans is None else Traced(app, spans))
    outer: ASGIApp = gate if log_format == "none" else RequestLog(gate, log_format)
    server = _Server(server_config(outer), on_ready, gate, drain_seconds)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after it has shut down
            server.run(sockets=[listener])
    finally:
        if spans is not None:
            spans.close()


def server_config(app: ASGIApp, *, request_timeout: float = 60.0) -> uvicorn.Config:
    """uvicorn's configuration; a request that takes longer than `request_timeout` seconds to arrive is cut off."""
    protocol = functools.partial(PatientProtocol, request_timeout=request_timeout)
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
        lifespan="on",
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it is ready, and drains at the first SIGTERM."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None] | None, gate: Gate, drain_seconds: float
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._gate = gate
        self._drain_seconds = drain_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._loop = asyncio.get_running_loop()
        if self.started and self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains, once; any other signal, or a second one, ends at once."""
        if sig == signal.SIGTERM and self._loop is not None and not self._gate.draining:
            self._gate.draining = True
            self._loop.call_soon_threadsafe(self._begin_drain)
        else:
            super().handle_exit(sig, frame)

    def _begin_drain(self) -> None:
        if self._gate.in_flight:
            say(f"draining: {self._gate.in_flight} requests may finish, at most {self._drain_seconds:g} s")
        self._drain = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        left = await self._gate.drain(self._drain_seconds)
        if left:
            say(f"{left} requests did not finish in {self._drain_seconds:g} s and are cut off")
        self.should_exit = True
