"""Floor 6, runner: one background thread steps the engine; requests come from and outputs go to any asyncio loop.

Every touch of the engine happens on that thread, so the engine needs no lock. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import itertools
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import ServeError
from highrise.serve.constraint import Constraints, Grammar
from highrise.serve.engine import Engine
from highrise.serve.engine_stats import EngineStats
from highrise.serve.request import Output, Request

__all__ = ["EngineRunner"]

T = TypeVar("T")
Sink = Callable[[Output | BaseException], None]


class EngineRunner:
    """Owns the engine's thread. `close` ends it; requests in flight then fail with `ServeError`."""

    num_restarts = 0
    """An engine in this process is never started again."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._constraints = Constraints(engine.tokenizer)
        self._jobs: collections.deque[Callable[[], None]] = collections.deque()
        self._wake = threading.Condition()
        self._sinks: dict[str, Sink] = {}
        self._names = itertools.count(1)
        self._closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="highrise-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are still answered."""
        return self._thread.is_alive() and not self._closing

    def check(self) -> None:
        """Return when requests are answered, else raise `ServeError`."""
        if not self.alive:
            raise self._stopped()

    async def generate(self, request: Request) -> AsyncGenerator[Output, None]:
        """Outputs of one request as they come. Leaving the loop early, or cancelling it, cancels the request."""
        if request.grammar is not None:
            constraint = await self._constraints.compile(request.grammar)
            request = msgspec.structs.replace(request, constraint=constraint)
        self.engine.check(request)
        if not request.id:
            request = msgspec.structs.replace(request, id=f"stream-{next(self._names)}")
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Output | BaseException] = asyncio.Queue()

        def sink(item: Output | BaseException) -> None:
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        self._submit(lambda: self._start(request, sink))
        finished = False
        try:
            while not finished:
                item = await arrived.get()
                if isinstance(item, BaseException):
                    finished = True
                    raise item
                finished = item.finish_reason is not None
                yield item
        finally:
            if not finished:
                self._submit(lambda: self._abandon(request.id), ignore_closed=True)

    async def compile(self, grammar: Grammar) -> None:
        """Make `grammar` ready for requests that name it; `InputError` says what is wrong with it."""
        await self._constraints.compile(grammar)

    async def embed(self, prompts: Sequence[Sequence[int]], *, adapter: str | None = None) -> npt.NDArray[np.float32]:
        """`Engine.embed` on the engine's thread, one prompt between two steps."""
        rows = [
            await self._ask(lambda ids=ids: self.engine.embed([ids], adapter=adapter))  # type: ignore[misc]
            for ids in prompts
        ]
        return np.concatenate(rows)

    async def load_adapter(self, name: str, folder: Path, *, replace: bool = False) -> None:
        """`Engine.load_adapter` while the engine runs: read and packed beside it, made known between two steps."""
        adapter = await asyncio.to_thread(self.engine.adapters.prepare, name, folder)
        await self._ask(lambda: self.engine.register_adapter(adapter, replace=replace))

    async def unload_adapter(self, name: str) -> None:
        """`Engine.unload_adapter` between two steps; requests under way end with the adapter."""
        await self._ask(lambda: self.engine.unload_adapter(name))

    def stats(self) -> EngineStats:
        """The engine's counts; a snapshot that may be one step old."""
        return self.engine.stats()

    def close(self) -> None:
        """Stop after the current step and wait for the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    # ------------------------------------------------------------------------------------------------ both sides

    def _submit(self, job: Callable[[], None], *, ignore_closed: bool = False) -> None:
        with self._wake:
            if self._closing or self._failure is not None:
                if ignore_closed:
                    return
                raise self._stopped()
            self._jobs.append(job)
            self._wake.notify()

    async def _ask(self, question: Callable[[], T]) -> T:
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def job() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)

        self._submit(job)
        return await asyncio.wrap_future(answer)

    def _stopped(self) -> ServeError:
        reason = f" after {self._failure!r}" if self._failure is not None else ""
        return ServeError(f"the engine has stopped{reason}; start the server again")

    # ------------------------------------------------------------------------------------------------ engine's thread

    def _run(self) -> None:
        try:
            while self._take_jobs():
                for output in self.engine.step():
                    self._deliver(output)
        except BaseException as error:
            self._failure = error
        finally:
            with self._wake:
                self._closing = True
                jobs = [*self._jobs]
                self._jobs.clear()
            for job in jobs:
                job()
            for name in [*self._sinks]:
                self._send(name, self._stopped())
            self._sinks.clear()

    def _take_jobs(self) -> bool:
        """Wait for work and run what was submitted; False when it is time to end."""
        with self._wake:
            while not (self._jobs or self.engine.has_work or self._closing):
                self._wake.wait()
            if self._closing:
                return False
            jobs = [*self._jobs]
            self._jobs.clear()
        for job in jobs:
            job()
        return True

    def _start(self, request: Request, sink: Sink) -> None:
        try:
            if self._closing:
                raise self._stopped()
            self.engine.add(request)
            self._sinks[request.id] = sink
        except Exception as error:
            _quietly(sink, error)

    def _abandon(self, request_id: str) -> None:
        self._sinks.pop(request_id, None)
        self.engine.cancel(request_id)

    def _deliver(self, output: Output) -> None:
        self._send(output.request_id, output)
        if output.finish_reason is not None:
            self._sinks.pop(output.request_id, None)

    def _send(self, request_id: str, item: Any) -> None:
        sink = self._sinks.get(request_id)
        if sink is not None and not _quietly(sink, item):
            self._abandon(request_id)


def _quietly(sink: Sink, item: Output | BaseException) -> bool:
    """Hand over; False when the receiving loop is closed, which is nobody's failure."""
    try:
        sink(item)
    except RuntimeError:
        return False
    return True
