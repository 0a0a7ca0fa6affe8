"""Floor 6, connection: uvicorn's HTTP protocol with an end to its patience for requests that never arrive whole.

uvicorn waits for ever for the rest of a head or a body, so a few thousand idle sockets exhaust a server. Knows nothing
of the application.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from highrise.serve.gathered_transport import GatheredTransport

__all__ = ["PatientProtocol"]

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection whose request is not whole `request_timeout` seconds after it could have begun."""

    def __init__(self, *arguments: Any, request_timeout: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = request_timeout
        self._alarm: asyncio.TimerHandle | None = None
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited from here."""
        super().connection_made(GatheredTransport(transport, self.loop))
        self._expect()

    def on_message_begin(self) -> None:
        """Another request on this connection begins."""
        super().on_message_begin()
        self._begun = True
        if self._alarm is None:
            self._expect()

    def on_message_complete(self) -> None:
        """The request is whole; its answer may take as long as it takes."""
        super().on_message_complete()
        self._begun = False
        self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._alarm = self.loop.call_later(self._patience, self._give_up)

    def _forget(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _give_up(self) -> None:
        self._alarm = None
        if self.transport.is_closing():
            return
        answered = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self._begun and not answered:
            self.transport.write(_TOO_SLOW)
        self.transport.close()
