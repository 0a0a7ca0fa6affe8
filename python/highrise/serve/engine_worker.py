"""Floor 6, engine worker: the process that holds the weights and steps the engine, at the other end of a socket pair.

One thread: read what came, compute a step, send what it gave. Only grammars are compiled and adapters read beside it.
It ends when the server does. `python -P -m highrise.serve.engine_worker SOCKET PULSE` is how the server starts it.
"""

from __future__ import annotations

import collections
import concurrent.futures
import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from highrise.core.errors import HighriseError
from highrise.core.progress import say
from highrise.serve.constraint import Constraint, Constraints
from highrise.serve.engine_link import (
    Add,
    Answer,
    Broken,
    Cancel,
    Channel,
    Compile,
    Embed,
    Fault,
    LoadAdapter,
    Outputs,
    Ready,
    Refused,
    ServerMessage,
    Start,
    UnloadAdapter,
)
from highrise.serve.engine_pulse import IDLE_ROUND, Pulse
from highrise.serve.request import Output, Request

if TYPE_CHECKING:
    from highrise.serve.engine import Engine

__all__ = ["EngineWorker", "load", "main"]

T = TypeVar("T")

_STATS_EVERY = 0.25  # seconds
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def load(**options: Any) -> Engine:
    """`Engine.load` with the paths as text; says what was derived."""
    from highrise.serve.engine import Engine

    adapters = {name: Path(folder) for name, folder in options.pop("adapters", {}).items()}
    adapter, draft = (
        None if one is None else Path(one) for one in map(options.pop, ("adapter", "draft"), (None, None))
    )
    return Engine.load(Path(options.pop("path")), adapter=adapter, adapters=adapters, draft=draft, say=say, **options)


class EngineWorker:
    """Serves one channel with one engine until the other end closes it."""

    def __init__(self, engine: Engine, channel: Channel[ServerMessage], pulse: Pulse) -> None:
        self._engine = engine
        self._channel = channel
        self._pulse = pulse
        self._constraints = Constraints(engine.tokenizer)
        self._beside = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="highrise-beside")
        self._done: collections.deque[Callable[[], None]] = collections.deque()
        self._embeds: collections.deque[Embed] = collections.deque()
        self._compiling: set[str] = set()
        self._last_prompt: list[int] = []
        self._told = 0.0
        self._wake, self._waker = os.pipe()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._takes: dict[type[Any], Callable[[Any], None]] = {
            Add: self._add,
            Cancel: self._cancel,
            Compile: self._compile,
            Embed: self._embeds.append,
            LoadAdapter: self._load_adapter,
            UnloadAdapter: self._unload_adapter,
        }

    def run(self) -> None:
        """Until the server closes its end."""
        engine = self._engine
        try:
            while True:
                self._pulse.beat()
                self._exchange()
                while self._done:
                    self._done.popleft()()
                if self._embeds:
                    self._embed(self._embeds.popleft())
                if engine.has_work:
                    self._tell(engine.step())
        except (EOFError, ConnectionError):
            pass
        finally:
            self._beside.shutdown(wait=False, cancel_futures=True)

    def _exchange(self) -> None:
        """Read what came and send what is left; waits only when there is nothing to compute."""
        channel = self._channel
        if channel.waits:
            channel.flush()
        if not (self._engine.has_work or self._embeds or self._done):
            self._poll.register(channel, select.POLLIN | (select.POLLOUT if channel.waits else 0))
            ready = {number for number, _ in self._poll.poll(IDLE_ROUND * 1000)}
            if self._wake in ready:
                os.read(self._wake, 1 << 12)
            if channel.fileno() not in ready:
                return
        for message in channel.receive():
            self._takes[type(message)](message)

    def _tell(self, outputs: list[Output]) -> None:
        """The counts go with the last output, so that who has read it knows of no work that is over."""
        now = time.monotonic()
        stats = None
        if now - self._told > _STATS_EVERY or not self._engine.has_work:
            self._told = now
            stats = self._engine.stats()
        if outputs or stats is not None:
            self._channel.send(Outputs(outputs, stats))

    # ------------------------------------------------------------------------------------------------- requests

    def _add(self, message: Add) -> None:
        if message.prompt_ids is not None:
            self._last_prompt = message.prompt_ids
        request = Request(
            id=message.id,
            prompt_ids=self._last_prompt,
            sampling=message.sampling,
            priority=message.priority,
            salt=message.salt,
            adapter=message.adapter,
            session=message.session,
            floating=message.floating,
            begins=message.begins,
        )
        grammar = message.grammar
        if grammar is None:
            self._begin(request, None)
        elif (known := self._constraints.known(grammar)) is not None:
            self._begin(request, known)
        else:
            self._compiling.add(request.id)
            self._run_beside(
                lambda: self._constraints.compile_now(grammar),
                lambda constraint: self._begin_compiled(request, constraint),
                lambda fault: self._channel.send(Refused(request.id, fault)),
            )

    def _begin_compiled(self, request: Request, constraint: Constraint) -> None:
        if request.id in self._compiling:
            self._compiling.discard(request.id)
            self._begin(request, constraint)

    def _begin(self, request: Request, constraint: Constraint | None) -> None:
        try:
            self._engine.add(msgspec.structs.replace(request, constraint=constraint))
        except HighriseError as error:
            self._channel.send(Refused(request.id, Fault.of(error)))

    def _cancel(self, message: Cancel) -> None:
        self._compiling.discard(message.id)
        self._engine.cancel(message.id)

    # ------------------------------------------------------------------------------------------------- questions

    def _compile(self, message: Compile) -> None:
        self._run_beside(
            lambda: self._constraints.compile_now(message.grammar),
            lambda _: self._channel.send(Answer(message.number, None)),
            lambda fault: self._channel.send(Answer(message.number, fault)),
        )

    def _embed(self, message: Embed) -> None:
        def vector() -> bytes:
            return self._engine.embed([message.prompt_ids], adapter=message.adapter).tobytes()

        self._answer(message.number, vector)

    def _load_adapter(self, message: LoadAdapter) -> None:
        def known(adapter: Any) -> bytes:
            self._engine.register_adapter(adapter, replace=message.replace)
            return b""

        self._run_beside(
            lambda: self._engine.adapters.prepare(message.name, Path(message.folder)),
            lambda adapter: self._answer(message.number, lambda: known(adapter)),
            lambda fault: self._channel.send(Answer(message.number, fault)),
        )

    def _unload_adapter(self, message: UnloadAdapter) -> None:
        def gone() -> bytes:
            self._engine.unload_adapter(message.name)
            return b""

        self._answer(message.number, gone)

    def _answer(self, number: int, question: Callable[[], bytes]) -> None:
        try:
            self._channel.send(Answer(number, None, question()))
        except HighriseError as error:
            self._channel.send(Answer(number, Fault.of(error)))

    def _run_beside(self, work: Callable[[], T], then: Callable[[T], None], failed: Callable[[Fault], None]) -> None:
        """`work` on another thread, what follows from it between two steps."""

        def run() -> None:
            try:
                value = work()
            except Exception as error:
                fault = Fault.of(error)
                self._done.append(lambda: failed(fault))
            else:
                self._done.append(lambda: then(value))
            os.write(self._waker, b"!")

        self._beside.submit(run)


def main(arguments: list[str]) -> int:
    """Load what the first message says and serve it; 1 when that failed or a step did."""
    _die_with_the_server()
    channel: Channel[ServerMessage] = Channel(socket.socket(fileno=int(arguments[0])), ServerMessage)
    try:
        start = _first(channel)
        engine = _open(start)
        channel.send(_ready(engine))
    except EOFError:
        return 0
    except Exception as error:
        return _broke(channel, error)
    gc.collect()
    gc.freeze()  # what the model is made of stays: collections need not look at it again
    try:
        EngineWorker(engine, channel, Pulse(int(arguments[1]))).run()
    except Exception as error:
        traceback.print_exc()
        return _broke(channel, error)
    return 0


def _die_with_the_server() -> None:
    """Signals to the group of a terminal or a service are the server's to answer; its death is ours."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def _first(channel: Channel[ServerMessage]) -> Start:
    while True:
        select.select([channel], [], [])
        for message in channel.receive():
            assert isinstance(message, Start)
            return message


def _open(start: Start) -> Engine:
    module, _, name = start.opener.partition(":")
    engine: Engine = getattr(importlib.import_module(module), name)(**start.options)
    for adapter, folder in start.adapters.items():
        if adapter in engine.adapters.names:
            continue
        try:
            engine.load_adapter(adapter, Path(folder))
        except HighriseError as error:
            say(f'the adapter "{adapter}" is not loaded again: {error}')
    return engine


def _ready(engine: Engine) -> Ready:
    adapters = {name: str(engine.adapters.find(name).path) for name in engine.adapters.names}
    default = engine.default_adapter
    return Ready(engine.name, engine.max_context, adapters, None if default is None else default.name, engine.stats())


def _broke(channel: Channel[ServerMessage], error: Exception) -> int:
    """Tell why, as far as the other end still listens."""
    try:
        channel.send(Broken(Fault.of(error)))
        deadline = time.monotonic() + 1
        while channel.waits and time.monotonic() < deadline:
            select.select([], [channel], [], 0.1)
            channel.flush()
    except OSError:
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
