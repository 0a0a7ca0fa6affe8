"""Floor 6, generation: one wire request as one or more engine requests, and their outputs as one stream.

Owns the limit of the queue, the clocks of the metrics and the translation of sampling fields. Knows no answer's shape.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from highrise.core.errors import InputError
from highrise.serve.metrics import Metrics
from highrise.serve.protocol import ApiError, SamplingFields, new_id
from highrise.serve.request import Output, Request, Sampling

if TYPE_CHECKING:
    from highrise.serve.constraint import Constraint
    from highrise.serve.runner import EngineRunner

__all__ = ["Generation", "Piece", "merge", "num_choices", "sampling_of"]

T = TypeVar("T")

_MAX_CHOICES = 32
_MAX_BIASES = 1024


class Piece(NamedTuple):
    """What choice `index` has gained."""

    choice: int
    output: Output


def _refuse_unsupported(request: SamplingFields) -> None:
    """What would change the answer and is not done here is refused, not passed over."""
    if request.best_of not in (None, request.n or 1):
        raise ApiError(f"'best_of' is {request.best_of} and 'n' is {request.n or 1}; they must agree.", param="best_of")


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
    _refuse_unsupported(request)
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


class Generation:
    """Sends requests to the engine's thread and reports each to the metrics.

    More than `max_waiting` requests at a time are refused with 429, so that a client backs off instead of piling up.
    """

    def __init__(self, runner: EngineRunner, metrics: Metrics, *, max_waiting: int) -> None:
        self._runner = runner
        self._metrics = metrics
        self._max_waiting = max_waiting
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
            raise ApiError(
                f"The server already holds {self.in_flight} requests of at most {self._max_waiting}; try again soon.",
                status=429,
                type="rate_limit_error",
                code="queue_full",
                headers={"retry-after": "1"},
            )

    def start(
        self,
        prompt_ids: list[int],
        sampling: Sampling,
        *,
        count: int = 1,
        priority: int = 0,
        constraint: Constraint | None = None,
    ) -> list[AsyncGenerator[Output, None]]:
        """`count` streams over the same prompt; with a seed each choice gets its own."""
        self.check_room(count)
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
                constraint=None if constraint is None else constraint.fresh(),
            )
            streams.append(self._run(request))
        return streams

    async def _run(self, request: Request) -> AsyncGenerator[Output, None]:
        timer = self._metrics.timer()
        prompt_tokens, cached, reason = len(request.prompt_ids), 0, "cancelled"
        self.in_flight += 1
        source = self._runner.generate(request)
        try:
            async for output in source:
                timer.tokens(output.num_generated - timer.generated)
                cached = output.num_cached_tokens
                if output.finish_reason is not None:
                    reason = output.finish_reason
                yield output
        finally:
            self.in_flight -= 1
            with contextlib.suppress(RuntimeError):
                await source.aclose()
            timer.end("abort" if reason == "cancelled" else reason, prompt_tokens=prompt_tokens, cached_tokens=cached)


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
