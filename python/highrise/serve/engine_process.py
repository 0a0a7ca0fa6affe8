"""Floor 6, engine process: runs an engine in a process of its own, and starts it again when it dies or hangs.

A busy server or a slow client then never holds up a step, and a crash of the engine costs the requests in flight (they
are told so) instead of the server. Only the engine's process holds weights. Knows no HTTP. vLLM's EngineCore is alike.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import ConfigError, HighriseError, ServeError
from highrise.core.progress import say as say_on_stderr
from highrise.serve.constraint import Grammar
from highrise.serve.engine_connection import EngineConnection
from highrise.serve.engine_link import (
    Broken,
    Channel,
    Compile,
    Embed,
    EngineMessage,
    LoadAdapter,
    Ready,
    Start,
    UnloadAdapter,
)
from highrise.serve.engine_pulse import IDLE_ROUND, Pulse, Watchdog
from highrise.serve.engine_stats import EngineStats
from highrise.serve.engine_view import RestartingError
from highrise.serve.loaded_adapters import LoadedAdapter, LoadedAdapters, UnknownAdapterError
from highrise.serve.request import Output, Request

if TYPE_CHECKING:
    from highrise.encode.prompt import PromptFormat
    from highrise.encode.tokenizer import Tokenizer

__all__ = ["STEP_TIMEOUT", "EngineProcess", "ProcessView"]

STEP_TIMEOUT = 300.0
"""Seconds; meant to be far above any real step. A slow machine with a very large model, or `embed` of a long prompt,
which is one round, may need more."""

_LONGEST_PAUSE = 30.0
_STEADY = 60.0
"""Seconds of life after which a death counts as the first one again."""
_GOODBYE = 5.0
"""Seconds that the process may take for its last step."""


class _Adapters:
    """The names and folders of the adapters over there."""

    most = LoadedAdapters.most

    def __init__(self) -> None:
        self.by_name: dict[str, LoadedAdapter] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def find(self, name: str) -> LoadedAdapter:
        adapter = self.by_name.get(name)
        if adapter is None:
            raise UnknownAdapterError(f'adapter "{name}" is not loaded; loaded: {", ".join(self.names) or "none"}')
        return adapter


class ProcessView:
    """What the routes ask of the engine over there; the vocabulary and the prompts are here."""

    def __init__(self, ready: Ready, adapters: _Adapters, tokenizer: Tokenizer, prompts: PromptFormat) -> None:
        self.name = ready.name
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.max_context = ready.max_context
        self.adapters = adapters
        self._default = ready.default_adapter

    @property
    def default_adapter(self) -> LoadedAdapter | None:
        """What requests run under that name no adapter."""
        return None if self._default is None else self.adapters.by_name.get(self._default)


class EngineProcess:
    """A runner (`serve/engine_view.py`) over an engine in a process of its own.

    `opener` ("module:function") is called there with `options` and returns the engine. The process starts at once;
    `wait` returns when it is ready. `close` ends it after the current step. A process whose step takes longer than
    `step_timeout` seconds is killed and started again; how long it may load is not limited.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        opener: str = "highrise.serve.engine_worker:load",
        step_timeout: float = STEP_TIMEOUT,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        if not step_timeout > 4 * IDLE_ROUND:
            raise ConfigError(f"the step timeout is {step_timeout:g} s; it must be more than {4 * IDLE_ROUND:g} s")
        self.num_restarts = 0
        self._step_timeout = step_timeout
        self._options = dict(options)
        """The adapters among them count for the first process; later ones get those that are loaded then."""
        self._opener = opener
        self._say = say
        self._adapters = _Adapters()
        self._names = itertools.count(1)
        self._changed = threading.Condition()
        self._closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._end: socket.socket | None = None
        self._connection: EngineConnection | None = None
        self._ready: Ready | None = None
        self._failure: HighriseError | None = None
        self._stats: EngineStats | None = None
        self._load_seconds = 1.0
        self._trouble = ""
        self._thread = threading.Thread(target=self._watch, name="highrise-engine-watch", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------- for the routes

    def wait(self) -> Ready:
        """What the engine is, once it is loaded; what made that fail the first time is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None or self._failure is not None or self._closing)
            if self._failure is not None:
                raise self._failure
            if self._ready is None:
                raise ServeError("the engine was closed before it was loaded")
            return self._ready

    def view(self, tokenizer: Tokenizer, prompts: PromptFormat) -> ProcessView:
        """The engine for the routes; waits until it is loaded."""
        return ProcessView(self.wait(), self._adapters, tokenizer, prompts)

    @property
    def alive(self) -> bool:
        """Whether requests are answered now."""
        connection = self._connection
        return connection is not None and not connection.is_lost and not self._closing

    def check(self) -> None:
        """Return when requests are answered; else the error that they would get."""
        if not self.alive:
            raise self._lost("")

    async def generate(self, request: Request) -> AsyncGenerator[Output, None]:
        """Outputs of one request as they come. Leaving the loop early, or cancelling it, cancels the request."""
        if not request.id:
            request = msgspec.structs.replace(request, id=f"stream-{next(self._names)}")
        connection = self._connected()
        arrived = connection.begin(request)
        finished = False
        try:
            while not finished:
                item = await arrived.get()
                if not isinstance(item, Output):
                    finished = True
                    raise item
                finished = item.finish_reason is not None
                yield item
        finally:
            if not finished:
                connection.abandon(request.id)

    async def compile(self, grammar: Grammar) -> None:
        """Make `grammar` ready over there; `InputError` says what is wrong with it."""
        await self._connected().ask(lambda number: Compile(number, grammar))

    async def embed(self, prompts: Sequence[Sequence[int]], *, adapter: str | None = None) -> npt.NDArray[np.float32]:
        """`Engine.embed`, one prompt between two steps."""
        rows = []
        for ids in prompts:
            data = await self._connected().ask(lambda number, ids=ids: Embed(number, list(ids), adapter))  # type: ignore[misc]
            rows.append(np.frombuffer(data, dtype=np.float32))
        return np.stack(rows)

    async def load_adapter(self, name: str, folder: Path, *, replace: bool = False) -> None:
        """`Engine.load_adapter` over there; a later process loads it again."""
        await self._connected().ask(lambda number: LoadAdapter(number, name, str(folder.absolute()), replace))
        self._adapters.by_name[name] = LoadedAdapter(name, folder, 0)

    async def unload_adapter(self, name: str) -> None:
        """`Engine.unload_adapter` over there; requests under way end with the adapter."""
        await self._connected().ask(lambda number: UnloadAdapter(number, name))
        self._adapters.by_name.pop(name, None)

    def stats(self) -> EngineStats:
        """The engine's counts, at most a quarter of a second old while it computes."""
        connection = self._connection
        stats = self._stats if connection is None else connection.stats
        assert stats is not None, "stats are asked for after `wait`"
        return stats

    def close(self) -> None:
        """End the process after its current step; requests in flight fail with `ServeError`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            end, child = self._end, self._child
        if end is not None:
            with contextlib.suppress(OSError):  # it ended by itself
                end.shutdown(socket.SHUT_WR)
        if self._connection is not None:
            self._thread.join(_GOODBYE)
        if self._thread.is_alive() and child is not None:
            child.kill()
        self._thread.join()

    def _connected(self) -> EngineConnection:
        connection = self._connection
        if connection is None or connection.is_lost or self._closing:
            raise self._lost("")
        return connection

    def _lost(self, last_words: str) -> ServeError:
        if self._closing:
            return ServeError("the engine has stopped; start the server again")
        why = last_words or self._trouble
        reason = f" after: {why}" if why else ""
        return RestartingError(
            f"the engine process ended{reason}, and is being started again; send the request once more",
            seconds=self._load_seconds,
        )

    # ------------------------------------------------------------------------------------------------- its thread

    def _watch(self) -> None:
        """Start the process, wait for its end, start it again, until closed."""
        pause = 0.0
        while not self._closing:
            born = time.monotonic()
            try:
                self._connection, pulse = self._spawn()
            except (HighriseError, OSError) as error:
                failure = error if isinstance(error, HighriseError) else ServeError(f"cannot start the engine: {error}")
                if self._ready is None:
                    self._fail(failure)
                    return
                self._trouble = str(failure)
            else:
                self._load_seconds = time.monotonic() - born
                self._trouble = ""
                with self._changed:
                    self._changed.notify_all()
                if self.num_restarts:
                    self._say(f"the engine runs again after {self._load_seconds:.1f} s")
                self._guard(pulse)
            how = _ending(self._reap())
            self._leave()
            if self._closing:
                return
            steady = time.monotonic() - born > _STEADY + self._load_seconds
            pause = 0.0 if steady else min(pause * 2 + 0.5, _LONGEST_PAUSE)
            self._trouble = self._trouble or how
            self.num_restarts += 1
            self._say(f"the engine process ended ({self._trouble}); starting it again in {pause:g} s")
            with self._changed:
                self._changed.wait_for(lambda: self._closing, timeout=pause)

    def _guard(self, pulse: Pulse) -> None:
        """Watch the pulse of the process that runs, until it has ended."""
        child = self._child
        assert child is not None

        def hung() -> None:
            self._trouble = f"no step ended within {self._step_timeout:g} s"
            child.kill()

        watchdog = Watchdog(pulse, self._step_timeout, hung)
        child.wait()
        watchdog.close()

    def _leave(self) -> None:
        """No new requests for the process that ended; those in flight hear of it by their connection."""
        if (connection := self._connection) is not None:
            self._stats = connection.stats
            self._connection = None

    def _fail(self, failure: HighriseError) -> None:
        self._reap()
        with self._changed:
            self._failure = failure
            self._changed.notify_all()

    def _reap(self) -> int:
        """Wait for the process to end; its return code."""
        return 0 if self._child is None else self._child.wait()

    def _spawn(self) -> tuple[EngineConnection, Pulse]:
        """The connection to a process that is ready, and its pulse; nothing stays open of one that is not."""
        here, there = socket.socketpair()
        with contextlib.ExitStack() as undo:
            undo.enter_context(here)
            pulse = Pulse()
            undo.callback(pulse.close)
            with there:
                ends = (there.fileno(), pulse.fd)
                command = [sys.executable, "-P", "-m", "highrise.serve.engine_worker", *map(str, ends)]
                with self._changed:
                    if self._closing:
                        raise ServeError("the engine was closed before it was loaded")
                    self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=ends)
                    self._end = here
            channel: Channel[EngineMessage] = Channel(here, EngineMessage)
            adapters = {name: str(one.path) for name, one in self._adapters.by_name.items()}
            channel.send(Start(self._opener, self._options, adapters))
            ready = _first_message(channel)
            undo.pop_all()
        self._adapters.by_name = {
            name: self._adapters.by_name.get(name) or LoadedAdapter(name, Path(folder), 0)
            for name, folder in ready.adapters.items()
        }
        self._ready = ready
        self._options.pop("adapters", None)
        return EngineConnection(channel, ready.stats, self._lost), pulse


def _first_message(channel: Channel[EngineMessage]) -> Ready:
    """Wait until the engine is loaded; `ServeError`, or its own error, when it is not."""
    while True:
        select.select([channel], [channel] if channel.waits else [], [])
        channel.flush()
        try:
            messages = channel.receive()
        except EOFError:
            raise ServeError("the engine process ended while it loaded the model") from None
        for message in messages:
            if isinstance(message, Broken):
                raise message.fault.error()
            assert isinstance(message, Ready)
            return message


def _ending(code: int) -> str:
    """A return code in words."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
