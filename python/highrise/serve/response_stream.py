"""Floor 6, response stream: the chunks of a chat as the typed events of /v1/responses, in OpenAI's order.

created, in_progress; for each item: added, its pieces, done; completed (or incomplete, or failed). Every event has the
next number. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

from msgspec import UNSET

from highrise.serve.answers import explain
from highrise.serve.protocol import (
    CallItem,
    ChatChunk,
    ChatChunkChoice,
    ContentPart,
    MessageItem,
    ResponseAnswer,
    ResponseError,
    ResponseEvent,
    ResponseRequest,
    ToolCallDelta,
    Usage,
    new_id,
)
from highrise.serve.responses import begin, finish

__all__ = ["response_events"]


async def response_events(
    request: ResponseRequest, chunks: AsyncIterator[ChatChunk], model: str
) -> AsyncGenerator[ResponseEvent, None]:
    """Every event; an error on the way ends the stream with `response.failed`."""
    writer = _Writer(begin(request, model))
    try:
        for event in writer.begin():
            yield event
        reason: str | None = None
        usage: Usage | None = None
        try:
            async for chunk in chunks:
                usage = chunk.usage if isinstance(chunk.usage, Usage) else usage
                for choice in chunk.choices[:1]:
                    reason = choice.finish_reason or reason
                    for event in writer.take(choice):
                        yield event
        except Exception as error:
            yield writer.fail(error)
            return
        for event in writer.end(reason, usage):
            yield event
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


class _Writer:
    """Keeps the answer as far as it is said, and the item that is being said."""

    def __init__(self, answer: ResponseAnswer) -> None:
        self.answer = answer
        self._number = 0
        self._call_index = -1

    def _event(self, kind: str, **fields: Any) -> ResponseEvent:
        self._number += 1
        return ResponseEvent(type=kind, sequence_number=self._number - 1, **fields)

    @property
    def _item(self) -> MessageItem | CallItem | None:
        """The item that is being said, the last one."""
        last = self.answer.output[-1] if self.answer.output else None
        return last if last is not None and last.status == "in_progress" else None

    @property
    def _place(self) -> int:
        return len(self.answer.output) - 1

    def begin(self) -> Iterator[ResponseEvent]:
        yield self._event("response.created", response=self.answer)
        yield self._event("response.in_progress", response=self.answer)

    def take(self, choice: ChatChunkChoice) -> Iterator[ResponseEvent]:
        delta = choice.delta
        if isinstance(delta.content, str) and delta.content:
            if not isinstance(self._item, MessageItem):
                yield from self._close()
                yield from self._open_message()
            yield from self._say(choice, delta.content)
        for call in delta.tool_calls if delta.tool_calls is not UNSET and delta.tool_calls else ():
            if call.index != self._call_index:
                yield from self._close()
                yield from self._open_call(call)
            yield from self._argue(call.function.arguments or "")

    def _open_message(self) -> Iterator[ResponseEvent]:
        item = MessageItem(id=new_id("msg"), content=[], status="in_progress")
        self.answer.output.append(item)
        yield self._event("response.output_item.added", output_index=self._place, item=item)
        item.content.append(ContentPart(text=""))
        yield self._event(
            "response.content_part.added",
            output_index=self._place,
            item_id=item.id,
            content_index=0,
            part=item.content[0],
        )

    def _say(self, choice: ChatChunkChoice, text: str) -> Iterator[ResponseEvent]:
        item = self._item
        assert isinstance(item, MessageItem)
        logprobs = choice.logprobs.content if choice.logprobs is not None else []
        item.content[0].text += text
        item.content[0].logprobs = [*item.content[0].logprobs, *logprobs]
        yield self._event(
            "response.output_text.delta",
            output_index=self._place,
            item_id=item.id,
            content_index=0,
            delta=text,
            logprobs=logprobs,
        )

    def _open_call(self, call: ToolCallDelta) -> Iterator[ResponseEvent]:
        self._call_index = call.index
        call_id = call.id if isinstance(call.id, str) else new_id("call")
        item = CallItem(
            id=new_id("fc"), call_id=call_id, name=call.function.name or "", arguments="", status="in_progress"
        )
        self.answer.output.append(item)
        yield self._event("response.output_item.added", output_index=self._place, item=item)

    def _argue(self, piece: str) -> Iterator[ResponseEvent]:
        item = self._item
        assert isinstance(item, CallItem)
        if piece:
            item.arguments += piece
            yield self._event(
                "response.function_call_arguments.delta", output_index=self._place, item_id=item.id, delta=piece
            )

    def _close(self, status: str = "completed") -> Iterator[ResponseEvent]:
        item = self._item
        if item is None:
            return
        at: dict[str, Any] = {"output_index": self._place, "item_id": item.id}
        if isinstance(item, MessageItem):
            part = item.content[0]
            yield self._event(
                "response.output_text.done", **at, content_index=0, text=part.text, logprobs=part.logprobs
            )
            yield self._event("response.content_part.done", **at, content_index=0, part=part)
        else:
            yield self._event("response.function_call_arguments.done", **at, name=item.name, arguments=item.arguments)
        item.status = status
        yield self._event("response.output_item.done", output_index=self._place, item=item)

    def end(self, reason: str | None, usage: Usage | None) -> Iterator[ResponseEvent]:
        incomplete = reason in ("length", "content_filter")
        yield from self._close("incomplete" if incomplete else "completed")
        finish(self.answer, reason, usage)
        yield self._event(f"response.{self.answer.status}", response=self.answer)

    def fail(self, error: Exception) -> ResponseEvent:
        refusal = explain(error)
        self.answer.status = "failed"
        self.answer.error = ResponseError(code=refusal.code or refusal.type, message=refusal.message)
        return self._event("response.failed", response=self.answer)
