"""Floor 2, pool: worker processes that clean chunks, of which each may die without taking the build along.

Native parsers (tree-sitter grammars, pdfium) run on foreign bytes. When a worker dies or takes too long, the file it
was at is counted as "crashed" or "timeout", and a new worker does the rest of its chunk. Nothing waits for ever, and
nothing is left running: a worker ends when its pipe does. Knows nothing of sources or of what cleaning is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import msgspec

from highrise.core.errors import DataError, HighriseError, InputError
from highrise.core.files import explain_os_error
from highrise.data.clean import Job, clean_jobs, new_record
from highrise.data.config import DataConfig
from highrise.data.shards import write_table

__all__ = ["Pool"]

_POLL = 1.0
_MAX_EARLY_DEATHS = 3


class _Chunk(msgspec.Struct, array_like=True):
    part: str
    jobs: list[Job]
    config: DataConfig


class _Failure(msgspec.Struct):
    sentence: str
    exit_code: int


def _serve(connection: Connection, mark: Any) -> None:
    """The life of a worker: a chunk in, its part written, an answer out."""
    decoder = msgspec.msgpack.Decoder(_Chunk)
    while True:
        try:
            chunk = decoder.decode(connection.recv_bytes())
        except (EOFError, OSError):
            return
        answer = b""
        try:
            table = clean_jobs(chunk.jobs, chunk.config, lambda number: _set(mark, number))
            write_table(Path(chunk.part), table, compression="lz4")
        except HighriseError as error:
            answer = msgspec.msgpack.encode(_Failure(str(error), error.exit_code))
        except OSError as error:
            failure = explain_os_error(error, f"writing {chunk.part}")
            answer = msgspec.msgpack.encode(_Failure(str(failure), failure.exit_code))
        connection.send_bytes(answer)


def _set(mark: Any, number: int) -> None:
    mark.value = number


class _Worker:
    """One process with its pipe and the number of the job that it is at."""

    def __init__(self) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(["highrise.data.pool"])
        self.mark = context.RawValue("q", -1)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.mark), daemon=True)
        self.process.start()
        theirs.close()
        self.chunk: _Chunk | None = None
        self.seen = -1
        self.since = time.monotonic()

    def give(self, chunk: _Chunk) -> None:
        self.chunk, self.seen, self.since = chunk, -1, time.monotonic()
        self.mark.value = -1
        self.connection.send_bytes(msgspec.msgpack.encode(chunk))

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.join()


class Pool:
    """Cleans chunks in `workers` processes; a context manager. `done` hears the jobs of each finished chunk."""

    def __init__(
        self, config: DataConfig, *, workers: int, timeout: float, done: Callable[[Sequence[Job]], None]
    ) -> None:
        self._config, self._limit, self._timeout, self._done = config, max(1, workers), timeout, done
        self._workers: list[_Worker] = []
        self._early_deaths = 0
        self.num_deaths = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def clean(self, jobs: list[Job], part: Path) -> None:
        """Have `jobs` cleaned and their table written to `part`; returns when a worker has begun it."""
        chunk = _Chunk(str(part), jobs, self._config)
        while True:
            free = next((worker for worker in self._workers if worker.chunk is None), None)
            if free is None and len(self._workers) < self._limit:
                free = _Worker()
                self._workers.append(free)
            if free is not None:
                self._give(free, chunk)
                return
            self._step()

    def finish(self) -> None:
        """Wait until every chunk is written."""
        while any(worker.chunk is not None for worker in self._workers):
            self._step()

    def _give(self, worker: _Worker, chunk: _Chunk) -> None:
        try:
            worker.give(chunk)
        except OSError:
            self._bury(worker, "crashed", "the process ended before it began")

    def _step(self) -> None:
        busy = {worker.connection: worker for worker in self._workers if worker.chunk is not None}
        for ready in wait(list(busy), timeout=min(_POLL, self._timeout)):
            worker = busy.pop(ready)  # type: ignore[call-overload]
            try:
                answer = worker.connection.recv_bytes()
            except (EOFError, OSError):
                worker.process.join(5)
                self._bury(worker, "crashed", f"the process ended with {worker.process.exitcode}")
                continue
            if answer:
                failure = msgspec.msgpack.decode(answer, type=_Failure)
                raise (InputError if failure.exit_code == InputError.exit_code else DataError)(failure.sentence)
            assert worker.chunk is not None
            self._done(worker.chunk.jobs)
            worker.chunk = None
        now = time.monotonic()
        for worker in busy.values():
            at = worker.mark.value
            if at != worker.seen:
                worker.seen, worker.since = at, now
            elif at >= 0 and now - worker.since > self._timeout:
                self._bury(worker, "timeout", f"over {self._timeout:.0f} s")

    def _bury(self, worker: _Worker, reason: str, detail: str) -> None:
        """Take over from a dead or stuck worker: the job it was at is decided, a new worker gets the chunk."""
        chunk, at = worker.chunk, worker.mark.value
        worker.stop()
        self._workers.remove(worker)
        self.num_deaths += 1
        assert chunk is not None
        if 0 <= at < len(chunk.jobs):
            record = new_record(chunk.jobs[at])
            record.reason, record.detail = reason, detail
            chunk.jobs[at].done = record
        else:
            self._early_deaths += 1
            if self._early_deaths > _MAX_EARLY_DEATHS:
                raise DataError(
                    f"the worker processes end before they read a file ({detail}); is there enough memory? Finished "
                    "work is kept"
                )
        fresh = _Worker()
        self._workers.append(fresh)
        self._give(fresh, chunk)
