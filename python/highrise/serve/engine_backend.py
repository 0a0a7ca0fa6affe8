"""Floor 6, engine backend: our own engine behind the routes, from the wire's request to the engine's and back.

Makes prompts with `encode/prompt.py`, sends them through `serve/generation.py`, writes the answers. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from highrise.core.errors import HighriseError
from highrise.serve.backend import Embedder
from highrise.serve.generation import Generation, Piece, merge, num_choices, sampling_of
from highrise.serve.infill import InfillStop, fit
from highrise.serve.metrics import Metrics
from highrise.serve.protocol import (
    ApiError,
    AssistantMessage,
    Chat,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatRequest,
    Completion,
    CompletionChoice,
    CompletionRequest,
    Detokenized,
    DetokenizeRequest,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
    InfillAnswer,
    InfillRequest,
    InfillSettings,
    InfillTimings,
    Model,
    ModelList,
    NamedToolChoice,
    SamplingFields,
    Tokenized,
    TokenizeRequest,
    TokenLogprob,
    TokenLogprobs,
    ToolCall,
    encode_floats,
    new_id,
    now,
)
from highrise.serve.request import Output, Priority
from highrise.serve.tool_stream import ParsedCall, ToolStream
from highrise.serve.translate import (
    LegacyLogprobs,
    UsageCounter,
    chat_logprobs,
    chat_reason,
    plain_message,
    shorten,
    split_prompts,
    token_text,
    tool_call,
    tool_deltas,
    tools_of,
    wire_reason,
)

if TYPE_CHECKING:
    import numpy as np

    from highrise.encode.prompt import Prompt
    from highrise.serve.engine import Engine
    from highrise.serve.runner import EngineRunner

__all__ = ["EngineBackend"]

_COMPLETION_TOKENS = 16  # OpenAI's default of max_tokens for completions
_INFILL_TOKENS = 128


class _CompletionWork(msgspec.Struct, kw_only=True):
    """A completion under way: `streams` holds `per_prompt` choices of the first prompt, then of the second, ..."""

    id: str
    created: int
    prompts: list[list[int]]
    per_prompt: int
    echo: list[str]
    streams: list[AsyncGenerator[Output, None]]

    @property
    def num_choices(self) -> int:
        return len(self.streams)

    def pieces(self) -> AsyncGenerator[Piece, None]:
        return merge(self.streams)


class _ChatWork(msgspec.Struct, kw_only=True):
    """A chat under way; `readers`, one a choice, exist when the request has tools."""

    id: str
    created: int
    prompt_ids: list[int]
    streams: list[AsyncGenerator[Output, None]]
    readers: list[ToolStream] | None

    def read(self, index: int, output: Output) -> tuple[str, list[ParsedCall]]:
        """The text and the whole calls that this output adds."""
        if self.readers is None:
            return output.text, []
        text, calls = self.readers[index].push(output.text)
        if output.finish_reason is not None:
            rest, more = self.readers[index].finish()
            return text + rest, calls + more
        return text, calls

    def num_calls(self, index: int) -> int:
        return 0 if self.readers is None else self.readers[index].num_calls


class EngineBackend:
    """Our own engine behind the routes; `name` is what /v1/models shows, `aliases` are accepted as well."""

    def __init__(
        self,
        engine: Engine,
        runner: EngineRunner,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        embedder: Embedder | None = None,
        max_waiting: int = 256,
    ) -> None:
        self.engine = engine
        self.runner = runner
        self.name = name or engine.name
        self.embedder = embedder
        self.metrics = Metrics(self.name)
        self.metrics.refresh_with(self._refresh_gauges)
        self._names = {"", self.name, engine.name, *aliases}
        self._tokenizer = engine.tokenizer
        self._prompts = engine.prompts
        self._generation = Generation(runner, self.metrics, max_waiting=max_waiting)
        self._created = now()

    # ------------------------------------------------------------------------------------------------ what there is

    @property
    def max_context(self) -> int:
        """Longest prompt plus answer in tokens."""
        length: int = self.engine.max_context
        return length

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` under the engine's vocabulary."""
        count: int = self._tokenizer.count(text)
        return count

    async def health(self) -> None:
        """The engine's thread is alive."""
        if not self.runner.alive:
            raise ApiError("The engine has stopped; start the server again.", status=503, type="server_error")

    async def models(self) -> ModelList:
        """The decoder, and the embedder when there is one."""
        models = [Model(id=self.name, created=self._created, max_model_len=self.max_context)]
        if self.embedder is not None:
            models.append(Model(id=self.embedder.name, created=self._created))
        return ModelList(models)

    async def close(self) -> None:
        """Stop the engine's thread."""
        await asyncio.to_thread(self.runner.close)

    def _check_model(self, name: str) -> None:
        if name not in self._names:
            raise ApiError(
                f"The model '{name}' does not exist here; this server runs '{self.name}'.",
                status=404,
                param="model",
                code="model_not_found",
            )

    def _refresh_gauges(self) -> None:
        stats = self.runner.stats()
        self.metrics.running.set(stats.num_running)
        self.metrics.waiting.set(stats.num_waiting)
        self.metrics.cache_usage.set(stats.page_usage)

    # -------------------------------------------------------------------------------------------------- completions

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""
        work = self._begin_completion(request)
        texts = [""] * work.num_choices
        reasons: list[str | None] = [None] * work.num_choices
        writers = [LegacyLogprobs(self._tokenizer) for _ in texts]
        usage = UsageCounter(work.prompts, work.per_prompt)
        async for index, output in work.pieces():
            piece = self._completion_text(work, index, output, usage)
            texts[index] += piece
            writers[index].add(output, work.prompts[index // work.per_prompt])
            reasons[index] = output.finish_reason or reasons[index]
        choices = [
            CompletionChoice(
                index=index,
                text=text,
                logprobs=writers[index].take() if request.logprobs is not None else None,
                finish_reason=wire_reason(reasons[index]),
            )
            for index, text in enumerate(texts)
        ]
        return Completion(id=work.id, created=work.created, model=self.name, choices=choices, usage=usage.total())

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces."""
        return self._stream_completion(request, self._begin_completion(request))

    async def _stream_completion(
        self, request: CompletionRequest, work: _CompletionWork
    ) -> AsyncGenerator[Completion, None]:
        writers = [LegacyLogprobs(self._tokenizer) for _ in range(work.num_choices)]
        usage = UsageCounter(work.prompts, work.per_prompt)
        pieces = work.pieces()
        try:
            async for index, output in pieces:
                text = self._completion_text(work, index, output, usage)
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
                yield Completion(id=work.id, created=work.created, model=self.name, choices=[choice])
            if request.stream_options is not None and request.stream_options.include_usage:
                yield Completion(id=work.id, created=work.created, model=self.name, choices=[], usage=usage.total())
        finally:
            await pieces.aclose()

    def _completion_text(self, work: _CompletionWork, index: int, output: Output, usage: UsageCounter) -> str:
        first = usage.count(index, output)
        return work.echo[index // work.per_prompt] + output.text if first and work.echo else output.text

    def _begin_completion(self, request: CompletionRequest) -> _CompletionWork:
        self._check_model(request.model)
        per_prompt = num_choices(request)
        stop_ids: Sequence[int] = ()
        wanted = _COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
        if request.suffix is not None:
            if request.echo:
                raise ApiError("'echo' and 'suffix' exclude each other.", param="echo")
            ids, stop_ids = self._fill_middle(request, wanted)
            prompts = [ids]
        else:
            prompts = [self._ids(prompt) for prompt in split_prompts(request.prompt, "prompt")]
        echo = [self._tokenizer.decode(ids) for ids in prompts] if request.echo else []
        if not echo and request.suffix is None and isinstance(request.prompt, str) and not prompts[0]:
            raise ApiError("The prompt is empty; there is nothing to continue.", param="prompt")
        self._generation.check_room(len(prompts) * per_prompt)
        streams: list[AsyncGenerator[Output, None]] = []
        for ids in prompts:
            room = self._room(ids, "prompt")
            sampling = sampling_of(
                request,
                max_tokens=min(wanted, room),
                logprobs=request.logprobs,
                echo=bool(request.echo),
                stop_ids=stop_ids,
            )
            priority = Priority.TYPING if request.suffix is not None else Priority.CHAT
            streams += self._generation.start(ids, sampling, count=per_prompt, priority=request.priority or priority)
        return _CompletionWork(
            id=new_id("cmpl"), created=now(), prompts=prompts, per_prompt=per_prompt, echo=echo, streams=streams
        )

    def _fill_middle(self, request: CompletionRequest, max_tokens: int) -> tuple[list[int], Sequence[int]]:
        if not isinstance(request.prompt, str):
            raise ApiError("With 'suffix' the prompt must be one string.", param="prompt")
        extra = [(piece.filename, piece.text) for piece in request.input_extra or ()]
        prompt, _ = self._middle(
            request.prompt, request.suffix or "", extra, max_tokens, path=request.path, repository=request.repository
        )
        return prompt.ids, prompt.stop_ids

    def _middle(
        self,
        prefix: str,
        suffix: str,
        extra: Sequence[tuple[str, str]],
        max_tokens: int,
        *,
        path: str | None,
        repository: str | None,
    ) -> tuple[Prompt, bool]:
        if not self._prompts.supports_infill:
            raise ApiError(
                f"The model '{self.name}' was not made to fill in a middle.", param="suffix", code="infill_unsupported"
            )
        budget = self.max_context - max_tokens - 32 - sum(self.count_tokens(one) for one in (path, repository) if one)
        if budget < 32:
            raise self._too_long(max_tokens, "max_tokens")
        window = fit(prefix, suffix, extra, budget=budget, count=self.count_tokens)
        prompt = self._prompts.infill(
            window.prefix, window.suffix, extra=window.extra, path=path, repository=repository
        )
        return prompt, window.truncated

    def _ids(self, prompt: str | list[int], param: str = "prompt") -> list[int]:
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt, special="all")
        for token in prompt:
            if not 0 <= token < self._tokenizer.vocab_size:
                raise ApiError(
                    f"The token id {token} is not among the {self._tokenizer.vocab_size} of the vocabulary.",
                    param=param,
                )
        if not prompt:
            raise ApiError("The prompt is empty; there is nothing to continue.", param=param)
        return prompt

    def _room(self, ids: Sequence[int], param: str) -> int:
        if len(ids) >= self.max_context:
            raise self._too_long(len(ids), param)
        return self.max_context - len(ids)

    def _too_long(self, length: int, param: str) -> ApiError:
        return ApiError(
            f"This model's maximum context length is {self.max_context} tokens, but the request needs {length} and "
            "room for the answer; shorten it.",
            param=param,
            code="context_length_exceeded",
        )

    # --------------------------------------------------------------------------------------------------------- chat

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""
        work = self._begin_chat(request)
        count = len(work.streams)
        texts: list[str] = [""] * count
        calls: list[list[ToolCall]] = [[] for _ in range(count)]
        reasons: list[str | None] = [None] * count
        logprobs: list[list[TokenLogprob]] = [[] for _ in range(count)]
        usage = UsageCounter([work.prompt_ids], len(work.streams))
        async for index, output in merge(work.streams):
            usage.count(index, output)
            text, found = work.read(index, output)
            texts[index] += text
            calls[index] += [tool_call(call) for call in found]
            logprobs[index] += chat_logprobs(self._tokenizer, output)
            reasons[index] = output.finish_reason or reasons[index]
        choices = [
            ChatChoice(
                index=index,
                message=AssistantMessage(
                    content=texts[index] if texts[index] or not calls[index] else None, tool_calls=calls[index] or UNSET
                ),
                finish_reason=chat_reason(reasons[index], bool(calls[index])),
                logprobs=TokenLogprobs(logprobs[index]) if request.logprobs else None,
            )
            for index in range(count)
        ]
        return Chat(id=work.id, created=work.created, model=self.name, choices=choices, usage=usage.total())

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces."""
        return self._stream_chat(request, self._begin_chat(request))

    async def _stream_chat(self, request: ChatRequest, work: _ChatWork) -> AsyncGenerator[ChatChunk, None]:
        usage = UsageCounter([work.prompt_ids], len(work.streams))
        pending: list[list[TokenLogprob]] = [[] for _ in work.streams]

        def chunk(index: int, delta: ChatDelta, reason: str | None = None) -> ChatChunk:
            logprobs = None
            if request.logprobs and pending[index]:
                logprobs, pending[index] = TokenLogprobs(pending[index]), []
            choice = ChatChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=logprobs)
            return ChatChunk(id=work.id, created=work.created, model=self.name, choices=[choice])

        pieces = merge(work.streams)
        try:
            for index in range(len(work.streams)):
                yield chunk(index, ChatDelta(role="assistant", content=""))
            async for index, output in pieces:
                usage.count(index, output)
                before = work.num_calls(index)
                text, found = work.read(index, output)
                if request.logprobs:
                    pending[index] += chat_logprobs(self._tokenizer, output)
                if text:
                    yield chunk(index, ChatDelta(content=text))
                for number, call in enumerate(found, start=before):
                    for delta in tool_deltas(number, call):
                        yield chunk(index, ChatDelta(tool_calls=[delta]))
                if output.finish_reason is not None:
                    yield chunk(index, ChatDelta(), chat_reason(output.finish_reason, work.num_calls(index) > 0))
            if request.stream_options is not None and request.stream_options.include_usage:
                yield ChatChunk(id=work.id, created=work.created, model=self.name, choices=[], usage=usage.total())
        finally:
            await pieces.aclose()

    def _begin_chat(self, request: ChatRequest) -> _ChatWork:
        self._check_model(request.model)
        if not request.messages:
            raise ApiError("'messages' is empty; there is nothing to answer.", param="messages")
        tools, forced = tools_of(request)
        messages = [plain_message(message, place) for place, message in enumerate(request.messages)]
        try:
            prompt = self._prompts.chat(messages, tools=tools, add_generation_prompt=True)
        except HighriseError as error:
            raise ApiError(f"The chat template refuses these messages: {error}.", param="messages") from error
        ids = prompt.ids
        if forced:
            ids = [*ids, *self._tokenizer.encode(forced, special="all")]
        room = self._room(ids, "messages")
        wanted = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        sampling = sampling_of(
            request,
            max_tokens=room if wanted is None else min(wanted, room),
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            stop_ids=prompt.stop_ids,
        )
        streams = self._generation.start(ids, sampling, count=num_choices(request), priority=request.priority or 0)
        readers = None
        if tools is not None:
            only_first = request.parallel_tool_calls is False or isinstance(request.tool_choice, NamedToolChoice)
            readers = [
                ToolStream(self._prompts.parse_tool_calls, forced=forced, only_first=only_first) for _ in streams
            ]
        return _ChatWork(id=new_id("chatcmpl"), created=now(), prompt_ids=ids, streams=streams, readers=readers)

    # ------------------------------------------------------------------------------------------------------- infill

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle as llama.cpp's server does, one answer for each choice."""
        answers: dict[int, InfillAnswer] = {}
        async for piece in await self.stream_infill(request):
            before = answers.get(piece.index)
            answers[piece.index] = (
                msgspec.structs.replace(piece, content=before.content + piece.content) if before else piece
            )
        return [answers[index] for index in sorted(answers)]

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """The same in pieces."""
        self._check_model(request.model)
        wanted = request.n_predict if request.n_predict is not None and request.n_predict >= 0 else _INFILL_TOKENS
        extra = [(piece.filename, piece.text) for piece in request.input_extra or ()]
        prompt, truncated = self._middle(
            request.input_prefix + (request.prompt or ""),
            request.input_suffix,
            extra,
            wanted,
            path=request.path,
            repository=request.repository,
        )
        fields = SamplingFields(
            temperature=request.temperature or 0.0,  # llama.cpp's 0.8 makes small models miss the end of a begun word
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            repetition_penalty=request.repeat_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None or request.seed < 0 else request.seed,
            stop=request.stop,
            n=request.n_cmpl,
        )
        ids = prompt.ids
        room = self._room(ids, "input_prefix")
        sampling = sampling_of(fields, max_tokens=min(wanted, room), stop_ids=prompt.stop_ids)
        streams = self._generation.start(ids, sampling, count=num_choices(fields), priority=Priority.TYPING)
        return self._stream_infill(request, ids, truncated, streams)

    async def _stream_infill(
        self,
        request: InfillRequest,
        ids: list[int],
        truncated: bool,
        streams: list[AsyncGenerator[Output, None]],
    ) -> AsyncGenerator[InfillAnswer, None]:
        started = time.perf_counter()
        first_token = 0.0
        stops = [InfillStop(indent=request.n_indent or 0, milliseconds=request.t_max_predict_ms) for _ in streams]
        done: set[int] = set()
        pieces = merge(streams)
        try:
            async for index, output in pieces:
                if index in done:
                    continue
                first_token = first_token or time.perf_counter()
                stop = stops[index]
                text = stop.push(output.text)
                reason = output.finish_reason or ("stop" if stop.ended else None)
                if reason is None:
                    if text:
                        yield InfillAnswer(content=text, stop=False, index=index, model=self.name)
                    continue
                done.add(index)
                yield self._last_infill(index, text, reason, output, len(ids), truncated, started, first_token)
                if len(done) == len(streams):
                    break
        finally:
            await pieces.aclose()

    def _last_infill(
        self,
        index: int,
        text: str,
        reason: str,
        output: Output,
        num_prompt: int,
        truncated: bool,
        started: float,
        first_token: float,
    ) -> InfillAnswer:
        prompt_ms = (first_token - started) * 1000
        predicted_ms = (time.perf_counter() - first_token) * 1000
        computed = num_prompt - output.num_cached_tokens
        return InfillAnswer(
            content=text,
            stop=True,
            model=self.name,
            index=index,
            tokens_predicted=output.num_generated,
            tokens_evaluated=num_prompt,
            tokens_cached=num_prompt + output.num_generated,
            truncated=truncated,
            stop_type="limit" if reason == "length" else "eos",
            timings=InfillTimings(
                prompt_n=computed,
                prompt_ms=prompt_ms,
                prompt_per_second=computed / max(prompt_ms, 1e-3) * 1000,
                predicted_n=output.num_generated,
                predicted_ms=predicted_ms,
                predicted_per_second=output.num_generated / max(predicted_ms, 1e-3) * 1000,
            ),
            generation_settings=InfillSettings(self.max_context),
        )

    # ------------------------------------------------------------------------------------------ vectors, token ids

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """One vector a text. Token ids are read, and tokens counted, under the served model's vocabulary."""
        embedder = self.embedder
        inputs = split_prompts(request.input, "input")
        if embedder is None:
            return await self._embed_by_engine(request, [self._ids(one, "input") for one in inputs])
        texts = [one if isinstance(one, str) else self._tokenizer.decode(self._ids(one, "input")) for one in inputs]
        vectors = await asyncio.to_thread(embedder.embed, texts)
        if request.dimensions is not None:
            vectors = shorten(vectors, request.dimensions)
        tokens = sum(self.count_tokens(text) for text in texts)
        return self._vectors(vectors, request, embedder.name, tokens)

    async def _embed_by_engine(self, request: EmbeddingRequest, prompts: list[list[int]]) -> EmbeddingList:
        """Without an embedding model: the mean of the decoder's last hidden states, good for little but duplicates."""
        self._check_model(request.model)
        for ids in prompts:
            if not ids:
                raise ApiError("A text is empty; there is nothing to embed.", param="input")
            self._room(ids, "input")
        vectors = await self.runner.embed(prompts)
        if request.dimensions is not None:
            vectors = shorten(vectors, request.dimensions)
        return self._vectors(vectors, request, self.name, sum(map(len, prompts)))

    def _vectors(
        self, vectors: np.ndarray[Any, Any], request: EmbeddingRequest, name: str, tokens: int
    ) -> EmbeddingList:
        form = request.encoding_format or "float"
        data = [Embedding(index=index, embedding=encode_floats(row, form)) for index, row in enumerate(vectors)]
        return EmbeddingList(data=data, model=name, usage=EmbeddingUsage(tokens, tokens))

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """Text, or a conversation under the chat template, as token ids."""
        self._check_model(request.model)
        if request.messages is not None:
            messages = [plain_message(message, place) for place, message in enumerate(request.messages)]
            ids = self._prompts.chat(messages).ids
        else:
            text = request.prompt if request.prompt is not None else request.content
            if text is None:
                raise ApiError("Give 'prompt' (or 'content'), or 'messages'.", param="prompt")
            ids = self._tokenizer.encode(text, special="all")
        strings = [token_text(self._tokenizer, token) for token in ids] if request.return_token_strs else UNSET
        return Tokenized(tokens=list(ids), count=len(ids), max_model_len=self.max_context, token_strs=strings)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """Token ids as text."""
        self._check_model(request.model)
        text = self._tokenizer.decode(self._ids(request.tokens, "tokens")) if request.tokens else ""
        return Detokenized(text, text)
