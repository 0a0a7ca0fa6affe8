"""Floor 6, engine chat: /v1/chat/completions over our own engine, with tool calls read while the model writes.

The prompt comes from the model's own chat template (`encode/prompt.py`). Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
from msgspec import UNSET

from highrise.core.errors import HighriseError
from highrise.serve.engine_inputs import EngineInputs, beside
from highrise.serve.generation import Generation, merge, num_choices, num_tries, sampling_of
from highrise.serve.grammar import grammar_of, with_tools
from highrise.serve.protocol import (
    ApiError,
    AssistantMessage,
    Chat,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatRequest,
    NamedToolChoice,
    TokenLogprob,
    TokenLogprobs,
    ToolCall,
    new_id,
    now,
)
from highrise.serve.request import Output
from highrise.serve.tool_stream import ParsedCall, ToolStream
from highrise.serve.translate import (
    UsageCounter,
    chat_logprobs,
    chat_reason,
    plain_message,
    tool_call,
    tool_deltas,
    tools_of,
)

__all__ = ["EngineChat"]


class _Work(msgspec.Struct, kw_only=True):
    """A chat under way; `readers`, one a choice, exist when the request has tools."""

    id: str
    created: int
    model: str
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


class EngineChat:
    """Answers chat requests."""

    def __init__(self, inputs: EngineInputs, generation: Generation) -> None:
        self._inputs = inputs
        self._generation = generation

    async def whole(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""
        work = await self._begin(request)
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
            logprobs[index] += chat_logprobs(self._inputs.tokenizer, output)
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
        return Chat(id=work.id, created=work.created, model=work.model, choices=choices, usage=usage.total())

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ChatChunk, None]:
        """The same in pieces; what is wrong with the request is refused at once."""
        return self._stream(request, await self._begin(request))

    async def _stream(self, request: ChatRequest, work: _Work) -> AsyncGenerator[ChatChunk, None]:
        usage = UsageCounter([work.prompt_ids], len(work.streams))
        pending: list[list[TokenLogprob]] = [[] for _ in work.streams]

        def chunk(index: int, delta: ChatDelta, reason: str | None = None) -> ChatChunk:
            logprobs = None
            if request.logprobs and pending[index]:
                logprobs, pending[index] = TokenLogprobs(pending[index]), []
            choice = ChatChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=logprobs)
            return ChatChunk(id=work.id, created=work.created, model=work.model, choices=[choice])

        pieces = merge(work.streams)
        try:
            for index in range(len(work.streams)):
                yield chunk(index, ChatDelta(role="assistant", content=""))
            async for index, output in pieces:
                usage.count(index, output)
                before = work.num_calls(index)
                text, found = work.read(index, output)
                if request.logprobs:
                    pending[index] += chat_logprobs(self._inputs.tokenizer, output)
                if text:
                    yield chunk(index, ChatDelta(content=text))
                for number, call in enumerate(found, start=before):
                    for delta in tool_deltas(number, call):
                        yield chunk(index, ChatDelta(tool_calls=[delta]))
                if output.finish_reason is not None:
                    yield chunk(index, ChatDelta(), chat_reason(output.finish_reason, work.num_calls(index) > 0))
            if request.stream_options is not None and request.stream_options.include_usage:
                yield ChatChunk(id=work.id, created=work.created, model=work.model, choices=[], usage=usage.total())
        finally:
            await pieces.aclose()

    async def _begin(self, request: ChatRequest) -> _Work:
        adapter = self._inputs.adapter(request.model)
        if not request.messages:
            raise ApiError("'messages' is empty; there is nothing to answer.", param="messages")
        if request.top_logprobs is not None and not request.logprobs:
            raise ApiError("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
        if num_tries(request) != num_choices(request):
            raise ApiError("'best_of' is a field of /v1/completions; ask for 'n' answers here.", param="best_of")
        tools, forced = tools_of(request)
        messages = [plain_message(message, place) for place, message in enumerate(request.messages)]
        size = sum(len(message["content"]) for message in messages)
        try:
            prompt = await beside(
                size, lambda: self._inputs.prompts.chat(messages, tools=tools, add_generation_prompt=True)
            )
        except HighriseError as error:
            raise ApiError(f"The chat template refuses these messages: {error}.", param="messages") from error
        ids = prompt.ids
        if forced:
            ids = [*ids, *self._inputs.tokenizer.encode(forced, special="all")]
        room = self._inputs.room(ids, "messages")
        wanted = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        try:
            sampling = sampling_of(
                request,
                max_tokens=room if wanted is None else min(wanted, room),
                logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                stop_ids=prompt.stop_ids,
                vocab_size=self._inputs.tokenizer.vocab_size,
            )
        except ApiError as error:
            newer = {} if request.max_completion_tokens is None else {"max_tokens": "max_completion_tokens"}
            raise error.renamed({"logprobs": "top_logprobs", **newer}) from error
        special = self._inputs.tokenizer.special_tokens
        grammar = with_tools(request, grammar_of(request), forced=forced, special_tokens=special)
        grammar = await self._generation.ready(grammar)
        streams = self._generation.start(
            ids,
            sampling,
            count=num_choices(request),
            priority=request.priority or 0,
            grammar=grammar,
            timeout=request.timeout,
            adapter=adapter,
        )
        readers = None
        if tools is not None:
            only_first = request.parallel_tool_calls is False or isinstance(request.tool_choice, NamedToolChoice)
            readers = [
                ToolStream(self._inputs.prompts.parse_tool_calls, forced=forced, only_first=only_first) for _ in streams
            ]
        return _Work(
            id=new_id("chatcmpl"),
            created=now(),
            model=adapter or self._inputs.name,
            prompt_ids=ids,
            streams=streams,
            readers=readers,
        )
