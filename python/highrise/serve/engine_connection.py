"""Floor 6, engine connection: the server's end of the channel to one engine process, for as long as that lives.

Read and written by one asyncio loop; when that is over, by the next that asks. When the process ends, all that wait are
told so. Knows neither how the process is started nor HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

import msgspec

from highrise.core.errors import HighriseError, InputError, ServeError
from highrise.serve.engine_link import (
    Add,
    Answer,
    Broken,
    Cancel,
    Channel,
    EngineMessage,
    Outputs,
    Refused,
    ServerMessage,
)
from highrise.serve.engine_stats import EngineStats
from highrise.serve.request import Output, Request

__all__ = ["EngineConnection"]

Arrived = asyncio.Queue[Output | HighriseError]


class EngineConnection:
    """One process's life. `lost` makes the error of those that wait when it ends, from its last words."""

    def __init__(self, channel: Channel[EngineMessage], stats: EngineStats, lost: Callable[[str], ServeError]) -> None:
        self.stats = stats
        self.is_lost = False
        self._channel = channel
        self._lost = lost
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sinks: dict[str, Arrived] = {}
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._last_prompt: list[int] | None = None
        self._last_words = ""

    # ------------------------------------------------------------------------------------------------- asking

    def begin(self, request: Request) -> Arrived:
        """Send a request; what comes of it arrives in the queue, an error as well."""
        if request.constraint is not None:
            raise InputError("a constraint cannot be sent to an engine process; give the grammar that it is made from")
        self._attach()
        arrived: Arrived = asyncio.Queue()
        self._sinks[request.id] = arrived
        prompt = None if request.prompt_ids is self._last_prompt else request.prompt_ids
        self._last_prompt = request.prompt_ids
        self._send(
            Add(
                request.id,
                prompt,
                request.sampling,
                request.priority,
                request.salt,
                request.adapter,
                request.grammar,
                request.session,
                request.floating,
                request.begins,
            )
        )
        return arrived

    def abandon(self, request_id: str) -> None:
        """Nobody waits for this request any more."""
        if self._sinks.pop(request_id, None) is not None:
            self._send(Cancel(request_id))

    async def ask(self, question: Callable[[int], ServerMessage]) -> bytes:
        """Send a numbered question and await its answer."""
        loop = self._attach()
        number = next(self._numbers)
        future: asyncio.Future[bytes] = loop.create_future()
        self._answers[number] = future
        self._send(question(number))
        try:
            return await future
        finally:
            self._answers.pop(number, None)

    # ------------------------------------------------------------------------------------------------- the loop's

    def _attach(self) -> asyncio.AbstractEventLoop:
        """The running loop, which reads and writes from now on; what was asked in one that is over is cancelled."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return loop
        if self._loop is not None:
            if self._loop.is_running():
                raise ServeError("the engine process is read by another asyncio loop, which runs still; ask there")
            if not self._loop.is_closed():
                self._loop.remove_reader(self._channel.socket)
                self._loop.remove_writer(self._channel.socket)
        self._loop = loop
        loop.add_reader(self._channel.socket, self._read)
        self._answers.clear()
        for request_id in [*self._sinks]:
            self.abandon(request_id)
        return loop

    def _send(self, message: ServerMessage) -> None:
        if self.is_lost:
            self._tell_all()
            return
        try:
            self._channel.send(message)
        except OSError:  # the process is gone; its last words, and its end, are still to be read
            return
        if self._channel.waits and self._loop is not None and not self._loop.is_closed():
            self._loop.add_writer(self._channel.socket, self._flush)

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.flush()
        if not self._channel.waits and self._loop is not None:
            self._loop.remove_writer(self._channel.socket)

    def _read(self) -> None:
        try:
            messages = self._channel.receive()
        except EOFError:
            self._end()
            return
        for message in messages:
            if isinstance(message, Outputs):
                self.stats = message.stats or self.stats
                for output in message.outputs:
                    self._deliver(output)
            elif isinstance(message, Refused):
                if (arrived := self._sinks.pop(message.id, None)) is not None:
                    arrived.put_nowait(message.fault.error())
            elif isinstance(message, Answer):
                self._settle(message)
            elif isinstance(message, Broken):
                self._last_words = message.fault.text

    def _deliver(self, output: Output) -> None:
        arrived = self._sinks.get(output.request_id)
        if arrived is None:
            return
        if output.finish_reason is not None:
            del self._sinks[output.request_id]
        arrived.put_nowait(output)

    def _settle(self, answer: Answer) -> None:
        future = self._answers.get(answer.number)
        if future is None or future.done():
            return
        if answer.fault is None:
            future.set_result(answer.data)
        else:
            future.set_exception(answer.fault.error())

    def _end(self) -> None:
        """The process is gone."""
        self.is_lost = True
        self.stats = msgspec.structs.replace(self.stats, num_running=0, num_waiting=0, page_usage=0.0)
        if self._loop is not None:
            self._loop.remove_reader(self._channel.socket)
            self._loop.remove_writer(self._channel.socket)
        self._channel.close()
        self._tell_all()

    def _tell_all(self) -> None:
        """Everybody that waits hears that the engine is gone."""
        sinks, self._sinks = self._sinks, {}
        for arrived in sinks.values():
            arrived.put_nowait(self._lost(self._last_words))
        for future in self._answers.values():
            if not future.done():
                future.set_exception(self._lost(self._last_words))
