"""The engine's thread: streams reach their loops, cancelled ones free their pages, a dead engine answers honestly."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from highrise.core.errors import InputError, ServeError
from highrise.serve.request import Request
from highrise.serve.runner import EngineRunner
from tests.serve.engine_parts import greedy, ids_of, tiny_engine

PROMPT = [5, 17, 33, 2, 8, 61, 40]


@pytest.fixture
def runner():
    runner = EngineRunner(tiny_engine(step_tokens=16))
    yield runner
    runner.close()
    runner.engine.cache.check()
    assert runner.engine.cache.num_free == runner.engine.cache.num_pages


async def collect(runner: EngineRunner, request: Request):
    return [output async for output in runner.generate(request)]


def wait_until(condition, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.005)


def test_streams_side_by_side_equal_streams_alone(runner):
    requests = [greedy([index, *PROMPT], 6 + index) for index in range(6)]

    async def all_of_them():
        return await asyncio.gather(*(collect(runner, request) for request in requests))

    together = asyncio.run(all_of_them())
    for request, outputs in zip(requests, together, strict=True):
        assert ids_of(outputs) == ids_of(tiny_engine().generate([request])[0])
        assert outputs[-1].finish_reason == "length"


def test_leaving_a_stream_cancels_the_request(runner):
    async def leave():
        stream = runner.generate(greedy(PROMPT, 200))
        async for _ in stream:
            break
        await stream.aclose()

    asyncio.run(leave())
    wait_until(lambda: runner.stats().num_running == 0)
    assert runner.stats().num_free_pages == runner.stats().num_pages


def test_a_cancelled_task_cancels_the_request(runner):
    async def cancel():
        task = asyncio.create_task(collect(runner, greedy(PROMPT, 200)))
        other = asyncio.create_task(collect(runner, greedy([1, *PROMPT], 10)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await other

    outputs = asyncio.run(cancel())
    assert ids_of(outputs) == ids_of(tiny_engine().generate([greedy([1, *PROMPT], 10)])[0])
    wait_until(lambda: runner.stats().num_running == 0)


def test_a_loop_that_died_cancels_its_requests(runner):
    loop = asyncio.new_event_loop()
    stream = runner.generate(greedy(PROMPT, 200))
    loop.run_until_complete(stream.__anext__())
    loop.close()
    wait_until(lambda: runner.stats().num_running == 0)
    assert asyncio.run(collect(runner, greedy(PROMPT, 3)))[-1].finish_reason == "length"


def test_errors_reach_the_caller_and_only_him(runner):
    async def mixed():
        good = asyncio.create_task(collect(runner, greedy(PROMPT, 5)))
        with pytest.raises(InputError, match="the prompt is empty"):
            await collect(runner, greedy([]))
        with pytest.raises(InputError, match="logit_bias names token 500"):
            await collect(runner, greedy(PROMPT, 5, logit_bias={500: 1.0}))
        return await good

    assert len(ids_of(asyncio.run(mixed()))) == 5


def test_embeddings_run_between_steps(runner):
    async def both():
        return await asyncio.gather(runner.embed([PROMPT, PROMPT]), collect(runner, greedy(PROMPT, 20)))

    vectors, outputs = asyncio.run(both())
    assert vectors.shape == (2, 32) and np.allclose(vectors[0], vectors[1])
    assert len(ids_of(outputs)) == 20


def test_a_dead_engine_answers_everyone():
    engine = tiny_engine()
    forward, calls = engine.decoder.forward, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError("no memory for the buffers of a step")
        return forward(*arguments)

    engine.decoder.forward = fail
    runner = EngineRunner(engine)

    async def two():
        results = await asyncio.gather(
            collect(runner, greedy(PROMPT, 50)), collect(runner, greedy(PROMPT, 50)), return_exceptions=True
        )
        with pytest.raises(ServeError, match="the engine has stopped after MemoryError"):
            await collect(runner, greedy(PROMPT, 5))
        return results

    for result in asyncio.run(two()):
        assert isinstance(result, ServeError) and "no memory for the buffers" in str(result)
    assert not runner.alive
    runner.close()


def test_close_ends_requests_in_flight():
    runner = EngineRunner(tiny_engine())

    async def closing():
        task = asyncio.create_task(collect(runner, greedy(PROMPT, 240)))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(runner.close)
        with pytest.raises(ServeError, match="the engine has stopped"):
            await task

    asyncio.run(closing())
    assert not any(thread.name == "highrise-engine" for thread in threading.enumerate())
