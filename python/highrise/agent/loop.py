"""Floor 7, loop: the agent. Asks the model, carries out the calls it makes, tells it the outcome, and asks again.

It ends with an answer, or after `max_steps` rounds with what is known by then. Everything that happens is an event, in
order, for a page to show. Knows the backend by the wire's structs only, so any model that calls tools will do.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from highrise.agent.context import Context
from highrise.agent.history import fit_history
from highrise.agent.tools import Toolbox
from highrise.serve.backend import Backend
from highrise.serve.protocol import (
    ChatChunk,
    ChatMessage,
    ChatRequest,
    FunctionCall,
    StreamOptions,
    ToolCall,
    Usage,
    encode,
)

if TYPE_CHECKING:
    from highrise.encode.index import Hit

__all__ = ["AgentEvent", "AgentLoop", "AgentRequest"]

_SYSTEM = (
    "You are the code assistant of a team. Answer from the team's own sources where you can and name the files. Use "
    "the tools when you need to look something up or to check; when you know enough, answer briefly."
)
_LAST = "You have used all your steps. Answer now with what you know."


class AgentRequest(msgspec.Struct, kw_only=True):
    """POST /v1/agent: a conversation as in chat. `use_tools: false` answers at once, with sources but without steps."""

    messages: list[ChatMessage]
    model: str = ""
    use_tools: bool | None = None
    use_context: bool | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


class AgentEvent(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One thing that happened. `type` tells which fields are set."""

    type: str
    """left_out, sources, step, text, tool_call, tool_result, done."""
    text: str = ""
    step: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""
    ok: bool | None = None
    seconds: float = 0.0
    data: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    reason: str = ""
    usage: Usage | None = None


class AgentLoop:
    """`backend` answers, `toolbox` acts, `context` finds sources for the question itself."""

    def __init__(
        self, backend: Backend, toolbox: Toolbox, context: Context, *, max_steps: int, temperature: float = 0.2
    ) -> None:
        self._backend = backend
        self._toolbox = toolbox
        self._context = context
        self._max_steps = max_steps
        self._temperature = temperature

    async def run(self, request: AgentRequest) -> AsyncGenerator[AgentEvent, None]:
        """Every event up to `done`; leaving early stops the model and the tool at work."""
        messages, left_out = self._fit(request.messages, request)
        if left_out:
            yield AgentEvent(type="left_out", data={"turns": left_out})
        chat = ChatRequest(
            messages=messages,
            model=request.model,
            max_tokens=request.max_tokens,
            temperature=self._temperature if request.temperature is None else request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            use_context=request.use_context,
            stream=True,
            stream_options=StreamOptions(include_usage=True),
        )
        chat, hits = await self._context.weave_chat(chat, max_context=self._backend.max_context)
        if hits:
            yield AgentEvent(type="sources", sources=[_source(hit) for hit in hits])
        with_tools = request.use_tools is not False and bool(self._toolbox.names)
        if with_tools and all(message.role not in ("system", "developer") for message in chat.messages):
            chat.messages.insert(0, ChatMessage(role="system", content=_SYSTEM))
        chat.use_context = False  # woven once, here
        max_steps = min(request.max_steps or self._max_steps, self._max_steps)
        used = Usage()
        step = 0
        while True:
            step += 1
            last = step > max_steps
            chat.tools = self._toolbox.wire() if with_tools and not last else None
            if last:
                chat.messages.append(ChatMessage(role="user", content=_LAST))
            chat.messages, _ = self._fit(chat.messages, request)
            turn = _Turn()
            chunks = await self._backend.stream_chat(chat)  # what is wrong with the request is said before the step
            try:
                yield AgentEvent(type="step", step=step)
                async for chunk in chunks:
                    if text := turn.add(chunk):
                        yield AgentEvent(type="text", text=text, step=step)
            finally:
                await chunks.aclose()  # type: ignore[attr-defined]
            used = _sum(used, turn.usage)
            if not turn.calls or last:
                reason = "steps" if last else turn.reason
                yield AgentEvent(type="done", reason=reason, step=step, usage=used)
                return
            chat.messages.append(
                ChatMessage(role="assistant", content=turn.text or None, tool_calls=list(turn.calls.values()))
            )
            for call in turn.calls.values():
                name, arguments = call.function.name, call.function.arguments
                yield AgentEvent(type="tool_call", id=call.id, name=name, arguments=arguments, step=step)
                started = time.monotonic()
                result = await self._toolbox.call(name, arguments)
                yield AgentEvent(
                    type="tool_result",
                    id=call.id,
                    name=name,
                    ok=result.ok,
                    text=result.text,
                    data=result.data,
                    seconds=round(time.monotonic() - started, 3),
                    step=step,
                )
                chat.messages.append(ChatMessage(role="tool", tool_call_id=call.id, name=name, content=result.text))

    def _fit(self, messages: Sequence[ChatMessage], request: AgentRequest) -> tuple[list[ChatMessage], int]:
        """The messages without what the context does not hold beside the tools and an answer."""
        whole = self._backend.max_context
        if whole is None:
            return list(messages), 0
        answer = min(request.max_tokens or whole // 4, whole // 2)
        tools = 0
        if request.use_tools is not False and self._toolbox.names:
            tools = self._backend.count_tokens(encode(self._toolbox.wire()).decode() + _SYSTEM)
        return fit_history(messages, limit=whole - answer - tools, count=self._backend.count_tokens)


class _Turn:
    """What the model says in one round, put together from its chunks."""

    def __init__(self) -> None:
        self.text = ""
        self.calls: dict[int, ToolCall] = {}
        self.reason = "stop"
        self.usage: Usage | None = None

    def add(self, chunk: ChatChunk) -> str:
        """Take a chunk; the text that it adds."""
        if isinstance(chunk.usage, Usage):
            self.usage = chunk.usage
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.reason = choice.finish_reason or self.reason
        for piece in choice.delta.tool_calls or ():
            call = self.calls.get(piece.index)
            if call is None:
                name = piece.id if isinstance(piece.id, str) else f"call_{piece.index}"
                call = self.calls[piece.index] = ToolCall(id=name, function=FunctionCall())
            call.function.name += piece.function.name or ""
            call.function.arguments += piece.function.arguments or ""
        text = choice.delta.content
        text = text if isinstance(text, str) else ""
        self.text += text
        return text


def _source(hit: Hit) -> dict[str, Any]:
    return {
        "path": hit.path,
        "start_line": hit.start_line,
        "end_line": hit.end_line,
        "text": hit.text,
        "language": hit.language,
    }


def _sum(first: Usage, second: Usage | None) -> Usage:
    if second is None:
        return first
    return Usage.of(first.prompt_tokens + second.prompt_tokens, first.completion_tokens + second.completion_tokens)
