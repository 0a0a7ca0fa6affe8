"""Floor 6, generation: one wire request as one or more engine requests, and their outputs as one stream.

Owns the limit of the queue, the clocks of the metrics and the translation of sampling fields. Knows no answer's shape.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from highrise.core.errors import InputError, ServeError
from highrise.serve.engine_view import RestartingError
from highrise.serve.loaded_adapters import UnknownAdapterError
from highrise.serve.metrics import Metrics
from highrise.serve.protocol import ApiError, SamplingFields, new_id
from highrise.serve.request import Output, Request, Sampling
from highrise.serve.request_log import note
from highrise.serve.scheduler import QueueFullError
from highrise.serve.tracing import AnswerFacts, current_span

if TYPE_CHECKING:
    from highrise.encode.prompt import Prompt
    from highrise.serve.constraint import Grammar
    from highrise.serve.engine_view import Runner

__all__ = ["Generation", "Piece", "merge", "num_choices", "num_tries", "sampling_of", "stopped"]

T = TypeVar("T")

_MAX_CHOICES = 32
_MAX_BIASES = 1024
_MAX_SECONDS = 86_400


class Piece(NamedTuple):
    """What choice `index` has gained."""

    choice: int
    output: Output


def sampling_of(
    request: SamplingFields,
    *,
    max_tokens: int,
    logprobs: int | None = None,
    echo: bool = False,
    stop_ids: Sequence[int] = (),
    vocab_size: int,
) -> Sampling:
    """The engine's sampling of a wire request; a value out of range is an `ApiError` that names the field.

    `stop_ids` are the prompt format's; they count as end of text, so `ignore_eos` switches them off.
    """
    ends = () if request.ignore_eos else tuple(stop_ids)
    stop = [request.stop] if isinstance(request.stop, str) else list(request.stop or ())
    try:
        return Sampling(
            temperature=_or(request.temperature, 1.0),
            top_p=_or(request.top_p, 1.0) or 1e-6,  # OpenAI's 0 means the likeliest token alone
            top_k=max(_or(request.top_k, 0), 0),  # vLLM's -1 keeps all, as 0 does
            min_p=_or(request.min_p, 0.0),
            repetition_penalty=_or(request.repetition_penalty, 1.0),
            presence_penalty=_or(request.presence_penalty, 0.0),
            frequency_penalty=_or(request.frequency_penalty, 0.0),
            seed=request.seed,
            max_tokens=max_tokens,
            min_tokens=min(_or(request.min_tokens, 0), max_tokens),
            stop=tuple(one for one in stop if one),
            stop_ids=(*ends, *(request.stop_token_ids or ())),
            ignore_eos=bool(request.ignore_eos),
            logprobs=logprobs,
            echo=echo,
            logit_bias=_bias_of(request, vocab_size),
        )
    except InputError as error:
        name = str(error).split()[0]
        param = name if name in Sampling.__struct_fields__ else "stop" if " stop string" in str(error) else None
        raise ApiError(f"Invalid value: {error}.", param=param) from error


def _bias_of(request: SamplingFields, vocab_size: int) -> dict[int, float]:
    given = request.logit_bias or {}
    if len(given) > _MAX_BIASES:
        raise ApiError(
            f"'logit_bias' names {len(given)} tokens; at most {_MAX_BIASES} are allowed.", param="logit_bias"
        )
    bias: dict[int, float] = {}
    for token, value in given.items():
        if not (token.isascii() and token.isdigit() and int(token) < vocab_size):
            raise ApiError(
                f"'logit_bias' names the token '{token}'; its keys must be token ids below {vocab_size}.",
                param="logit_bias",
            )
        bias[int(token)] = value
    return bias


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def num_choices(request: SamplingFields) -> int:
    """`n` of the request, within reason."""
    count = 1 if request.n is None else request.n
    if not 1 <= count <= _MAX_CHOICES:
        raise ApiError(f"'n' is {count}; it must lie between 1 and {_MAX_CHOICES}.", param="n")
    return count


def num_tries(request: SamplingFields) -> int:
    """`best_of` of the request: how many answers are made, of which the likeliest `n` are kept."""
    count = num_choices(request)
    tries = count if request.best_of is None else request.best_of
    if not count <= tries <= _MAX_CHOICES:
        raise ApiError(f"'best_of' is {tries}; it must lie between 'n' ({count}) and {_MAX_CHOICES}.", param="best_of")
    if tries > count and request.stream:
        raise ApiError(
            "'best_of' above 'n' cannot be streamed: which answers are best shows at the end.", param="best_of"
        )
    return tries


def _queue_full(message: str) -> ApiError:
    return ApiError(message, status=429, type="rate_limit_error", code="queue_full", headers={"retry-after": "1"})


def stopped(error: ServeError) -> ApiError:
    """An engine that does not answer, as a refusal: 503, with when to ask again if it will be back."""
    if isinstance(error, RestartingError):
        return ApiError(
            f"{str(error)[0].upper()}{str(error)[1:]}.",
            status=503,
            type="server_error",
            code="engine_restarting",
            headers={"retry-after": str(math.ceil(error.seconds))},
        )
    return ApiError(f"The engine has stopped: {error}.", status=503, type="server_error", code="engine_stopped")


class Generation:
    """Sends requests to the engine's thread and reports each to the metrics.

    More than `max_waiting` requests at a time are refused with 429, so that a client backs off instead of piling up.
    """

    def __init__(
        self, runner: Runner, metrics: Metrics, *, max_waiting: int, answer_seconds: float | None = None
    ) -> None:
        self._runner = runner
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._answer_seconds = answer_seconds
        self.in_flight = 0

    def check_room(self, count: int) -> None:
        """Refuse when `count` more requests would overfill the queue."""
        if count > self._max_waiting:
            raise ApiError(
                f"The request asks for {count} answers at once, the server holds at most {self._max_waiting}; "
                "send fewer prompts or a smaller 'n'.",
                param="prompt",
            )
        if self.in_flight + count > self._max_waiting:
            raise _queue_full(
                f"The server already holds {self.in_flight} requests of at most {self._max_waiting}; try again soon."
            )

    async def ready(self, grammar: Grammar | None) -> Grammar | None:
        """`grammar`, compiled for the requests that will name it; one that cannot be is refused with the reason."""
        if grammar is None:
            return None
        try:
            await self._runner.compile(grammar)
        except InputError as error:
            param = grammar.param
            raise ApiError(f"'{param}' cannot be followed: {error}.", param=param, code="invalid_grammar") from error
        except ServeError as error:
            raise stopped(error) from error
        return grammar

    def start(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        *,
        count: int = 1,
        priority: int = 0,
        grammar: Grammar | None = None,
        timeout: float | None = None,
        session: str | None = None,
        fill_in: Prompt | None = None,
        adapter: str | None = None,
    ) -> list[AsyncGenerator[Output, None]]:
        """`count` streams over the same prompt; with a seed each choice gets its own.

        `timeout` seconds after the start an answer ends as it is, or is refused with 504 when it has not begun. A
        single stream takes the place of the one that its `session` has under way. `fill_in` tells what of the prompt
        floats, and what the answer begins with. `adapter` is the one to run under.
        """
        self.check_room(count)
        seconds = self._seconds(timeout)
        streams = []
        for index in range(count):
            own = sampling
            if sampling.seed is not None and index:
                own = msgspec.structs.replace(sampling, seed=sampling.seed + index)
            request = Request(
                id=new_id("req"),
                prompt_ids=prompt_ids,
                sampling=own,
                priority=priority,
                adapter=adapter,
                grammar=grammar,
                session=session if session and count == 1 else "",
                floating=None if fill_in is None else fill_in.floating,
                begins="" if fill_in is None else fill_in.begun,
            )
            streams.append(self._run(request, seconds, count))
        return streams

    def _seconds(self, wanted: float | None) -> float | None:
        """How long an answer may take: what the request says, at most what the server allows."""
        if wanted is not None and not 0 < wanted <= _MAX_SECONDS:
            raise ApiError(
                f"'timeout' is {wanted:g}; it must be seconds above 0, at most {_MAX_SECONDS}.", param="timeout"
            )
        limits = [limit for limit in (wanted, self._answer_seconds) if limit is not None]
        return min(limits) if limits else None

    async def _run(self, request: Request, seconds: float | None, count: int) -> AsyncGenerator[Output, None]:
        timer = self._metrics.timer()
        prompt_tokens, cached, reason = len(request.prompt_ids), 0, "cancelled"
        queued: float | None = None
        self.in_flight += 1
        source = self._runner.generate(request)
        if seconds is not None:
            source = _within(source, seconds)
        try:
            async for output in source:
                timer.tokens(output.num_generated - timer.generated)
                cached, queued = output.num_cached_tokens, output.queue_seconds
                if output.finish_reason is not None:
                    reason = output.finish_reason
                yield output
        except UnknownAdapterError as error:  # it was unloaded after the request's name was looked up
            raise ApiError(f"{error}.", status=404, param="model", code="model_not_found") from error
        except QueueFullError as error:
            raise _queue_full(f"The engine's queue is full: {error}.") from error
        except ServeError as error:
            raise stopped(error) from error
        finally:
            self.in_flight -= 1
            with contextlib.suppress(RuntimeError):
                await source.aclose()
            reason = "abort" if reason == "cancelled" else reason
            timer.stop()
            counted = functools.partial(
                timer.count, reason, prompt_tokens=prompt_tokens, cached_tokens=cached, queue_seconds=queued
            )
            asyncio.get_running_loop().call_soon(counted)  # after the answer's end is on its way
            if (span := current_span()) is not None:
                facts = AnswerFacts(
                    request_id=request.id,
                    model=request.adapter or self._metrics.model,
                    prompt_tokens=prompt_tokens,
                    cached_tokens=cached,
                    generated_tokens=timer.generated,
                    finish_reason=reason,
                    seconds=timer.seconds,
                    first_token_seconds=timer.first,
                    queue_seconds=queued,
                    temperature=request.sampling.temperature,
                    top_p=request.sampling.top_p,
                    max_tokens=request.sampling.max_tokens,
                    num_choices=count,
                )
                span.answer(facts)
            note(
                prompt_tokens=prompt_tokens,
                cached_tokens=cached,
                generated_tokens=timer.generated,
                finish_reason=reason,
            )


async def _within(source: AsyncGenerator[Output, None], seconds: float) -> AsyncGenerator[Output, None]:
    """`source` for so long; giving up on it frees its pages."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    last: Output | None = None
    try:
        while True:
            try:
                last = await asyncio.wait_for(anext(source), max(end - clock(), 0))
            except StopAsyncIteration:
                return
            yield last
    except TimeoutError:
        if last is None:
            raise ApiError(
                f"The answer had not begun after {seconds:g} seconds; try again when less is running.",
                status=504,
                type="server_error",
                code="deadline_exceeded",
            ) from None
        yield msgspec.structs.replace(
            last, ids=(), text="", logprobs=None, prompt_logprobs=None, finish_reason="length"
        )
    finally:
        await source.aclose()


async def merge(streams: Sequence[AsyncGenerator[Output, None]]) -> AsyncGenerator[Piece, None]:
    """Outputs of all streams as they come; leaving early cancels every stream."""
    if len(streams) == 1:
        try:
            async for output in streams[0]:
                yield Piece(0, output)
        finally:
            await streams[0].aclose()
        return
    queue: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue()

    async def pump(index: int, stream: AsyncGenerator[Output, None]) -> None:
        try:
            async for output in stream:
                queue.put_nowait(Piece(index, output))
            queue.put_nowait(None)
        except Exception as error:
            queue.put_nowait(error)
        finally:
            await stream.aclose()

    tasks = [asyncio.ensure_future(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
