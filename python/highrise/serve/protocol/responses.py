"""Floor 6, wire: /v1/responses, OpenAI's newer form of a conversation, whole and as a stream of typed events."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from highrise.serve.protocol.chat import TokenLogprob

__all__ = [
    "CallItem",
    "ContentPart",
    "IncompleteDetails",
    "InputTokenDetails",
    "MessageItem",
    "OutputTokenDetails",
    "ResponseAnswer",
    "ResponseError",
    "ResponseEvent",
    "ResponseRequest",
    "ResponseUsage",
    "TextOptions",
]


class TextOptions(msgspec.Struct, kw_only=True):
    """How the text is to be shaped: `format` is {"type": "text"}, "json_object", or "json_schema" with its fields."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseRequest(msgspec.Struct, kw_only=True):
    """POST /v1/responses. `input` is a text, or items: messages, function calls, and what the functions returned."""

    input: str | list[dict[str, Any]]
    model: str = ""
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    truncation: str | None = None
    user: str | None = None
    use_context: bool | None = None


class ContentPart(msgspec.Struct, kw_only=True):
    """A piece of a message's content; only text is made here."""

    text: str
    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[TokenLogprob] = []


class MessageItem(msgspec.Struct, kw_only=True, tag="message"):
    """What the model says."""

    id: str
    content: list[ContentPart]
    status: str = "completed"
    role: Literal["assistant"] = "assistant"


class CallItem(msgspec.Struct, kw_only=True, tag="function_call"):
    """A call that the model asks for."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: str = "completed"


class InputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Where prompt tokens came from."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What answer tokens were spent on."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Token counts."""

    input_tokens: int = 0
    input_tokens_details: InputTokenDetails = InputTokenDetails()
    output_tokens: int = 0
    output_tokens_details: OutputTokenDetails = OutputTokenDetails()
    total_tokens: int = 0


class IncompleteDetails(msgspec.Struct):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseError(msgspec.Struct):
    """What went wrong after the answer had begun."""

    code: str
    message: str


class ResponseAnswer(msgspec.Struct, kw_only=True):
    """The answer of /v1/responses; the fields of the request come back."""

    id: str
    created_at: float
    model: str
    object: Literal["response"] = "response"
    status: Literal["in_progress", "completed", "incomplete", "failed"] = "in_progress"
    output: list[MessageItem | CallItem] = []
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: ResponseUsage | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    store: bool = False
    temperature: float | None = None
    text: TextOptions | None = None
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = []
    top_p: float | None = None
    truncation: str = "disabled"


class ResponseEvent(msgspec.Struct, kw_only=True):
    """One event of a stream; which fields it has depends on its `type`."""

    type: str
    sequence_number: int
    response: ResponseAnswer | UnsetType = UNSET
    output_index: int | UnsetType = UNSET
    item: MessageItem | CallItem | UnsetType = UNSET
    item_id: str | UnsetType = UNSET
    content_index: int | UnsetType = UNSET
    part: ContentPart | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
