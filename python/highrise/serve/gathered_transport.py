"""Floor 6, gathered transport: what one turn of the event loop writes leaves in one system call.

uvicorn writes head, chunks and end of an answer one by one, and each of those calls wakes the client: about 50
microseconds on a virtual machine. Knows nothing of what is written.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["GatheredTransport"]

_MOST = 1 << 16  # bytes; beyond them the transport sees the data at once, so that it can pause who writes


class GatheredTransport(asyncio.Transport):
    """Another transport, written to once a turn of the loop; all else is handed on."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._gathered: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> None:
        """Keep `data` for the end of this turn."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(bytes(data))
        self._size += len(data)
        if self._size > _MOST:
            self._flush()

    def _flush(self) -> None:
        gathered, self._gathered, self._size = self._gathered, [], 0
        if gathered and not self._transport.is_closing():  # else the client went away within this turn
            self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def close(self) -> None:
        """Write what is left, and close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._gathered, self._size = [], 0
        self._transport.abort()

    def is_closing(self) -> bool:
        """The transport's own."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The transport's own."""
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Bytes that were written and not sent."""
        return self._size + self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """The transport's own."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The transport's own."""
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """The transport's own."""
        self._transport.set_protocol(protocol)
