"""Floor 6, engine link: what a server and its engine process tell each other, and the frames they send it in.

Messages are msgpack arrays of tagged structs behind four bytes of length, over a socket pair. Neither end ever waits
for the other: what the socket does not take at once is kept and sent later. Knows neither engines nor HTTP.
"""

from __future__ import annotations

import collections
import socket
from typing import Any, Generic, TypeVar

import msgspec

from highrise.core.errors import ConfigError, HighriseError, InputError, ServeError
from highrise.serve.constraint import Grammar
from highrise.serve.engine_stats import EngineStats
from highrise.serve.loaded_adapters import UnknownAdapterError
from highrise.serve.request import Output, Sampling
from highrise.serve.scheduler import QueueFullError

__all__ = [
    "Add",
    "Answer",
    "Broken",
    "Cancel",
    "Channel",
    "Compile",
    "Embed",
    "EngineMessage",
    "Fault",
    "LoadAdapter",
    "Outputs",
    "Ready",
    "Refused",
    "ServerMessage",
    "Start",
    "UnloadAdapter",
]

_CHUNK = 1 << 18
_LENGTH = 4

T = TypeVar("T")


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


# -------------------------------------------------------------------------------------------- from server to engine


class Start(_Message, frozen=True):
    """The first one: call `opener` ("module:function") with `options`; it returns the engine."""

    opener: str
    options: dict[str, Any]
    adapters: dict[str, str]
    """Adapters that were loaded while an earlier process ran; one that is gone by now is left out."""


class Add(_Message, frozen=True):
    """A request. `prompt_ids` is None for the very prompt of the `Add` before, which the two then compute once."""

    id: str
    prompt_ids: list[int] | None
    sampling: Sampling
    priority: int
    salt: str
    adapter: str | None
    grammar: Grammar | None
    session: str
    floating: tuple[int, int] | None
    begins: str


class Cancel(_Message, frozen=True):
    """Nobody waits for this request any more."""

    id: str


class Compile(_Message, frozen=True):
    """Make a grammar ready; `Answer` says whether that went well."""

    number: int
    grammar: Grammar


class Embed(_Message, frozen=True):
    """The vector of one prompt; `Answer` carries it."""

    number: int
    prompt_ids: list[int]
    adapter: str | None


class LoadAdapter(_Message, frozen=True):
    """Load an adapter beside the steps."""

    number: int
    name: str
    folder: str
    replace: bool


class UnloadAdapter(_Message, frozen=True):
    """Drop an adapter."""

    number: int
    name: str


ServerMessage = Start | Add | Cancel | Compile | Embed | LoadAdapter | UnloadAdapter


# -------------------------------------------------------------------------------------------- from engine to server


class Fault(msgspec.Struct, frozen=True, array_like=True):
    """An error on its way to the other process."""

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """`error` by its most special known class."""
        for kind, one in _FAULTS.items():
            if isinstance(error, one):
                return cls(kind, str(error))
        return cls("server", f"{error!r}")

    def error(self) -> HighriseError:
        """The same error on this side."""
        return _FAULTS[self.kind](self.text)


_FAULTS: dict[str, type[HighriseError]] = {
    "adapter": UnknownAdapterError,
    "full": QueueFullError,
    "config": ConfigError,
    "input": InputError,
    "server": ServeError,
}


class Ready(_Message, frozen=True):
    """The model is loaded."""

    name: str
    max_context: int
    adapters: dict[str, str]
    """Names and folders."""
    default_adapter: str | None
    stats: EngineStats


class Outputs(_Message, frozen=True):
    """What a step added, and the counts when they are due."""

    outputs: list[Output]
    stats: EngineStats | None


class Refused(_Message, frozen=True):
    """This request cannot run."""

    id: str
    fault: Fault


class Answer(_Message, frozen=True):
    """What came of a numbered question; `data` are the bytes of a float32 vector."""

    number: int
    fault: Fault | None
    data: bytes = b""


class Broken(_Message, frozen=True):
    """The engine ends: it could not be loaded, or a step failed."""

    fault: Fault


EngineMessage = Ready | Outputs | Refused | Answer | Broken


# ----------------------------------------------------------------------------------------------------------- frames


class Channel(Generic[T]):
    """One end of the socket pair; it receives messages of type `T`. Not thread-safe."""

    def __init__(self, end: socket.socket, receives: Any) -> None:
        end.setblocking(False)
        self.socket = end
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(receives)
        self._incoming = bytearray()
        self._outgoing: collections.deque[memoryview] = collections.deque()

    def fileno(self) -> int:
        """The socket's."""
        return self.socket.fileno()

    @property
    def waits(self) -> bool:
        """Whether something is kept that the socket did not take yet: call `flush` when it can be written."""
        return bool(self._outgoing)

    def send(self, message: ServerMessage | EngineMessage) -> None:
        """Send or keep; `OSError` when the other end is gone."""
        frame = bytearray(_LENGTH)
        self._encoder.encode_into(message, frame, _LENGTH)
        frame[:_LENGTH] = (len(frame) - _LENGTH).to_bytes(_LENGTH, "little")
        self._outgoing.append(memoryview(frame))
        self.flush()

    def flush(self) -> None:
        """Send what is kept, as far as the socket takes it."""
        while self._outgoing:
            head = self._outgoing[0]
            try:
                sent = self.socket.send(head)
            except BlockingIOError:
                return
            if sent < len(head):
                self._outgoing[0] = head[sent:]
            else:
                self._outgoing.popleft()

    def receive(self) -> list[T]:
        """What arrived, without waiting; `EOFError` when the other end is gone and nothing is left."""
        try:
            data = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        self._incoming += data
        messages, start, view = [], 0, memoryview(self._incoming)
        while len(view) - start >= _LENGTH:
            end = start + _LENGTH + int.from_bytes(view[start : start + _LENGTH], "little")
            if end > len(view):
                break
            messages.append(self._decoder.decode(view[start + _LENGTH : end]))
            start = end
        view.release()
        del self._incoming[:start]
        return messages

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
