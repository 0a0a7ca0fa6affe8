"""Floor 6, engine completions: /v1/completions over our own engine, several prompts and choices at a time.

With `suffix` the one prompt is a fill-in-the-middle prompt, which goes before others in the queue. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from highrise.encode.prompt import Prompt
from highrise.serve.engine_inputs import EngineInputs, beside
from highrise.serve.generation import Generation, Piece, merge, num_choices, num_tries, sampling_of
from highrise.serve.grammar import grammar_of
from highrise.serve.protocol import ApiError, Completion, CompletionChoice, CompletionRequest, new_id, now
from highrise.serve.request import Output, Priority
from highrise.serve.translate import LegacyLogprobs, UsageCounter, split_prompts, wire_reason

__all__ = ["EngineCompletions"]

_DEFAULT_TOKENS = 16  # OpenAI's


class _Work(msgspec.Struct, kw_only=True):
    """A completion under way: `streams` holds `per_prompt` choices of the first prompt, then of the second, ..."""

    id: str
    created: int
    model: str
    prompts: list[list[int]]
    per_prompt: int
    echo: list[str]
    streams: list[AsyncGenerator[Output, None]]

    @property
    def num_choices(self) -> int:
        return len(self.streams)

    def pieces(self) -> AsyncGenerator[Piece, None]:
        return merge(self.streams)


class _Mean:
    """Mean log-probability of an answer's tokens."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, output: Output) -> None:
        for one in output.logprobs or ():
            self._sum += one.logprob
            self._count += 1

    def value(self) -> float:
        return self._sum / max(self._count, 1)


def _kept(scores: list[_Mean], tries: int, wanted: int) -> list[int]:
    """Of each prompt's `tries` answers the `wanted` likeliest, best first; all in their order when all are wanted."""
    if tries == wanted:
        return list(range(len(scores)))
    kept: list[int] = []
    for start in range(0, len(scores), tries):
        kept += sorted(range(start, start + tries), key=lambda index: -scores[index].value())[:wanted]
    return kept


class EngineCompletions:
    """Answers completion requests."""

    def __init__(self, inputs: EngineInputs, generation: Generation) -> None:
        self._inputs = inputs
        self._generation = generation

    async def whole(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""
        work = await self._begin(request)
        texts = [""] * work.num_choices
        reasons: list[str | None] = [None] * work.num_choices
        scores = [_Mean() for _ in texts]
        writers = [LegacyLogprobs(self._inputs.tokenizer) for _ in texts]
        usage = UsageCounter(work.prompts, work.per_prompt)
        async for index, output in work.pieces():
            piece = self._text(work, index, output, usage)
            texts[index] += piece
            scores[index].add(output)
            writers[index].add(output, work.prompts[index // work.per_prompt])
            reasons[index] = output.finish_reason or reasons[index]
        choices = [
            CompletionChoice(
                index=place,
                text=texts[index],
                logprobs=writers[index].take() if request.logprobs is not None else None,
                finish_reason=wire_reason(reasons[index]),
            )
            for place, index in enumerate(_kept(scores, work.per_prompt, num_choices(request)))
        ]
        return Completion(id=work.id, created=work.created, model=work.model, choices=choices, usage=usage.total())

    async def stream(self, request: CompletionRequest) -> AsyncGenerator[Completion, None]:
        """The same in pieces; what is wrong with the request is refused at once."""
        return self._stream(request, await self._begin(request))

    async def _stream(self, request: CompletionRequest, work: _Work) -> AsyncGenerator[Completion, None]:
        writers = [LegacyLogprobs(self._inputs.tokenizer) for _ in range(work.num_choices)]
        usage = UsageCounter(work.prompts, work.per_prompt)
        pieces = work.pieces()
        try:
            async for index, output in pieces:
                text = self._text(work, index, output, usage)
                writer = writers[index]
                writer.add(output, work.prompts[index // work.per_prompt])
                if not text and output.finish_reason is None:
                    continue
                choice = CompletionChoice(
                    index=index,
                    text=text,
                    logprobs=writer.take() if request.logprobs is not None else None,
                    finish_reason=wire_reason(output.finish_reason) if output.finish_reason else None,
                )
                yield Completion(id=work.id, created=work.created, model=work.model, choices=[choice])
            if request.stream_options is not None and request.stream_options.include_usage:
                yield Completion(id=work.id, created=work.created, model=work.model, choices=[], usage=usage.total())
        finally:
            await pieces.aclose()

    def _text(self, work: _Work, index: int, output: Output, usage: UsageCounter) -> str:
        first = usage.count(index, output)
        return work.echo[index // work.per_prompt] + output.text if first and work.echo else output.text

    async def _begin(self, request: CompletionRequest) -> _Work:
        adapter = self._inputs.adapter(request.model)
        per_prompt = num_tries(request)
        stop_ids: Sequence[int] = ()
        fill_in: Prompt | None = None
        wanted = _DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
        if request.suffix is not None:
            if request.echo:
                raise ApiError("'echo' and 'suffix' exclude each other.", param="echo")
            size = len(request.prompt) + len(request.suffix)
            fill_in = await beside(size, lambda: self._fill_middle(request, wanted))
            prompts, stop_ids = [fill_in.ids], fill_in.stop_ids
            wanted += self._inputs.count(fill_in.begun) if wanted else 0
        else:
            given = split_prompts(request.prompt, "prompt")
            prompts = await beside(sum(map(len, given)), lambda: [self._inputs.ids(prompt) for prompt in given])
        echo = [self._inputs.tokenizer.decode(ids) for ids in prompts] if request.echo else []
        if not all(prompts):
            raise ApiError("The prompt is empty; there is nothing to continue.", param="prompt")
        self._generation.check_room(len(prompts) * per_prompt)
        grammar = await self._generation.ready(grammar_of(request))
        streams: list[AsyncGenerator[Output, None]] = []
        for ids in prompts:
            room = self._inputs.room(ids, "prompt")
            sampling = sampling_of(
                request,
                max_tokens=min(wanted, room),
                logprobs=0 if request.logprobs is None and per_prompt > num_choices(request) else request.logprobs,
                echo=bool(request.echo),
                stop_ids=stop_ids,
                vocab_size=self._inputs.tokenizer.vocab_size,
            )
            priority = Priority.TYPING if request.suffix is not None else Priority.CHAT
            streams += self._generation.start(
                ids,
                sampling,
                count=per_prompt,
                priority=priority if request.priority is None else request.priority,
                grammar=grammar,
                timeout=request.timeout,
                session=request.session if len(prompts) == 1 else None,
                fill_in=fill_in,
                adapter=adapter,
            )
        return _Work(
            id=new_id("cmpl"),
            created=now(),
            model=adapter or self._inputs.name,
            prompts=prompts,
            per_prompt=per_prompt,
            echo=echo,
            streams=streams,
        )

    def _fill_middle(self, request: CompletionRequest, max_tokens: int) -> Prompt:
        if not isinstance(request.prompt, str):
            raise ApiError("With 'suffix' the prompt must be one string.", param="prompt")
        extra = [(piece.filename, piece.text) for piece in request.input_extra or ()]
        prompt, _ = self._inputs.middle(
            request.prompt,
            request.suffix or "",
            extra,
            max_tokens,
            path=request.path,
            repository=request.repository,
            # With log-probabilities every token is told and none hidden; a grammar knows of no begun word.
            heal=request.logprobs is None and grammar_of(request) is None,
        )
        return prompt
