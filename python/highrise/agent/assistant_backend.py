"""Floor 7, assistant backend: what turns a model into the team's assistant, as a layer over any backend.

Chat is checked by the guardrails, going in and coming out, and gets pieces of the sources. Ghost text gets pieces, too,
and is cut where a person would have stopped typing; generating ends there, so the cut saves time as well. A client that
wants the model's raw words asks for `logprobs`, several choices or `ignore_eos`. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from highrise.agent.completion import Cleaner, clean
from highrise.agent.config import AgentConfig
from highrise.agent.context import Context, question_of
from highrise.agent.wrapper import Wrapper
from highrise.serve.backend import Backend
from highrise.serve.grammar import grammar_of
from highrise.serve.protocol import (
    ApiError,
    Chat,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatRequest,
    Completion,
    CompletionChoice,
    CompletionRequest,
    InfillAnswer,
    InfillRequest,
    StreamOptions,
    Usage,
    new_id,
    now,
)

if TYPE_CHECKING:
    from highrise.align.guard import Finding, Watch

__all__ = ["AssistantBackend", "Guard"]


class Guard:
    """The guardrails of floor 5, or none at all; imported only when they are switched on."""

    def __init__(self, *, on: bool) -> None:
        self._check: Callable[..., list[Finding]] | None = None
        if on:
            from highrise.align import guard

            self._check, self._refusal, self._watch = guard.check, guard.refusal, guard.Watch

    def refuse_input(self, text: str) -> None:
        """`ApiError` when `text` must not go in."""
        if self._check is not None and (found := self._check(text, direction="in")):
            raise ApiError(self._refusal(found[0]), code="content_filter", param="messages")

    def refusal_of_output(self, text: str) -> str:
        """Why `text` must not come out, or nothing."""
        if self._check is not None and (found := self._check(text, direction="out")):
            return self._refusal(found[0])
        return ""

    def watch(self) -> Watch | None:
        """A fresh look-out over a streamed answer."""
        return self._watch() if self._check is not None else None

    def refusal(self, finding: Finding) -> str:
        """The sentence for a finding of `watch`."""
        return self._refusal(finding)

    def screen(self, text: str) -> str:
        """`text` of a tool with everything taken out that must not reach a model."""
        if self._check is None:
            return text
        for finding in reversed(self._check(text, direction="in")):
            text = f"{text[: finding.start]}[taken out by the guardrail '{finding.name}']{text[finding.end :]}"
        return text


class AssistantBackend(Wrapper):
    """Guardrails and context over `inner`."""

    def __init__(self, inner: Backend, config: AgentConfig, context: Context, guard: Guard) -> None:
        super().__init__(inner)
        self._config = config
        self._context = context
        self._guard = guard

    # --------------------------------------------------------------------------------------------------------- chat

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation; an answer that the guardrails stop is replaced by their sentence."""
        answer = await self.inner.chat(await self._prepare(request))
        for choice in answer.choices:
            if refusal := self._guard.refusal_of_output(choice.message.content or ""):
                choice.message.content = refusal
                choice.message.refusal = refusal
                choice.finish_reason = "content_filter"
        return answer

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces; the stream stops at the piece that completes what must not come out."""
        return self._watched(await self.inner.stream_chat(await self._prepare(request)))

    async def _prepare(self, request: ChatRequest) -> ChatRequest:
        self._guard.refuse_input(question_of(request.messages))
        woven, _ = await self._context.weave_chat(request, max_context=self.max_context)
        return woven

    async def _watched(self, chunks: AsyncIterator[ChatChunk]) -> AsyncGenerator[ChatChunk, None]:
        watches: dict[int, Watch | None] = {}
        try:
            async for chunk in chunks:
                for choice in chunk.choices:
                    if choice.index not in watches:
                        watches[choice.index] = self._guard.watch()
                    watch, text = watches[choice.index], choice.delta.content
                    if watch is None or not isinstance(text, str) or not text:
                        continue
                    if finding := watch.push(text):
                        delta = ChatDelta(content=f"\n\n{self._guard.refusal(finding)}")
                        last = ChatChunkChoice(index=choice.index, delta=delta, finish_reason="content_filter")
                        yield msgspec.structs.replace(chunk, choices=[last])
                        return
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    # --------------------------------------------------------------------------------------------------- ghost text

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt; a fill-in is fitted, woven and cut."""
        if not self._is_ghost_text(request):
            return await self.inner.complete(request)
        text, reason = "", "stop"
        asked = msgspec.structs.replace(request, stream_options=StreamOptions(include_usage=True))
        # The count of a text that was cut short is not told by the stream: then it is counted here.
        usage: Usage | None = None
        async for chunk in await self.stream_complete(asked):
            usage = chunk.usage if isinstance(chunk.usage, Usage) else usage
            for choice in chunk.choices:
                text += choice.text
                reason = choice.finish_reason or reason
        if usage is None:
            prompt = self.count_tokens(str(request.prompt)) + self.count_tokens(request.suffix or "")
            usage = Usage.of(prompt, self.count_tokens(text))
        if isinstance(request.prompt, str) and text:
            # What was streamed line by line is looked at once more as a whole.
            text = clean(text, prefix=request.prompt, suffix=request.suffix or "", path=request.path)
        choice = CompletionChoice(index=0, text=text, finish_reason=reason)
        return Completion(id=new_id("cmpl"), created=now(), model=self.name, choices=[choice], usage=usage)

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces: line by line for ghost text."""
        if not self._is_ghost_text(request):
            return await self.inner.stream_complete(request)
        if not self._config.completion:
            raise ApiError("Ghost text is switched off here (agent.completion is false).", param="suffix", status=403)
        woven = await self._context.weave_completion(request)
        if woven.temperature is None:
            woven = msgspec.structs.replace(woven, temperature=0.0)
        try:
            chunks = await self.inner.stream_complete(woven)
        except ApiError as error:
            if error.code != "infill_unsupported":
                raise
            # Going on from what stands before the cursor is less, but the cuts still look at what follows.
            ahead = msgspec.structs.replace(woven, suffix=None, input_extra=None)
            chunks = await self.inner.stream_complete(ahead)
        cleaner = Cleaner(prefix=str(request.prompt), suffix=request.suffix or "", path=request.path)
        return self._cut(chunks, cleaner)

    def _is_ghost_text(self, request: CompletionRequest) -> bool:
        several = (request.n or 1) > 1 or (request.best_of or 1) > 1
        raw = request.logprobs is not None or several or request.ignore_eos or grammar_of(request) is not None
        return request.suffix is not None and isinstance(request.prompt, str) and not raw

    async def _cut(self, chunks: AsyncIterator[Completion], cleaner: Cleaner) -> AsyncGenerator[Completion, None]:
        watch = self._guard.watch()
        try:
            async for chunk in chunks:
                if not chunk.choices:
                    yield chunk
                    continue
                choice = chunk.choices[0]
                text = cleaner.push(choice.text)
                if choice.finish_reason is not None and not cleaner.ended:
                    text += cleaner.finish()
                if text and watch is not None and watch.push(text):
                    text, cleaner.ended = "", True
                reason = "stop" if cleaner.ended else choice.finish_reason
                if text or reason is not None:
                    yield msgspec.structs.replace(
                        chunk, choices=[CompletionChoice(index=0, text=text, finish_reason=reason)]
                    )
                if cleaner.ended:
                    return
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """llama.cpp's fill-in, woven and cut."""
        answers = await self.inner.infill(await self._prepare_infill(request))
        prefix = request.input_prefix + (request.prompt or "")
        for answer in answers:
            answer.content = clean(answer.content, prefix=prefix, suffix=request.input_suffix, path=request.path)
            if self._guard.refusal_of_output(answer.content):
                answer.content = ""
        return answers

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """The same in pieces, as the model says them: llama.cpp's editors cut for themselves."""
        return await self.inner.stream_infill(await self._prepare_infill(request))

    async def _prepare_infill(self, request: InfillRequest) -> InfillRequest:
        if not self._config.completion:
            raise ApiError("Ghost text is switched off here (agent.completion is false).", status=403)
        return await self._context.weave_infill(request)
