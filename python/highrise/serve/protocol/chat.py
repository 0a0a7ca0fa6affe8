"""Floor 6, wire: /v1/chat/completions, whole and in chunks."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from highrise.serve.protocol.sampling import SamplingFields, Usage

__all__ = [
    "AssistantMessage",
    "Chat",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatDelta",
    "ChatMessage",
    "ChatRequest",
    "FunctionCall",
    "FunctionDefinition",
    "FunctionDelta",
    "NamedFunction",
    "NamedToolChoice",
    "TokenLogprob",
    "TokenLogprobs",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
]


class FunctionCall(msgspec.Struct, kw_only=True):
    """A function's name and its arguments as JSON text."""

    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct, kw_only=True):
    """A call that the model asks for, whole."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a conversation; content may be text, a list of text parts, or nothing beside tool calls."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None


class FunctionDefinition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A tool of a chat request; only functions exist."""

    function: FunctionDefinition
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    """The name inside a forced tool choice."""

    name: str


class NamedToolChoice(msgspec.Struct):
    """A tool choice that forces one function."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(SamplingFields, kw_only=True):
    """POST /v1/chat/completions. `use_context` is Highrise's: false leaves the agent's index out of the prompt."""

    messages: list[ChatMessage]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    use_context: bool | None = None


class TopLogprob(msgspec.Struct, kw_only=True):
    """A token that might have stood here."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(msgspec.Struct, kw_only=True):
    """A token that stands here and the best candidates beside it."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class TokenLogprobs(msgspec.Struct):
    """The chat shape of log-probabilities."""

    content: list[TokenLogprob]


class AssistantMessage(msgspec.Struct, kw_only=True):
    """The message of a chat answer."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: str | None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    """One answer of a chat."""

    index: int
    message: AssistantMessage
    finish_reason: str | None
    logprobs: TokenLogprobs | None = None


class Chat(msgspec.Struct, kw_only=True):
    """The answer of /v1/chat/completions."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage | None = None
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | None = None


class FunctionDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A piece of a function call: the name comes once."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, kw_only=True):
    """A piece of a tool call; `index` stands in each, since clients join the pieces by it."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChatDelta(msgspec.Struct, kw_only=True):
    """What a chunk adds."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType | None = UNSET


class ChatChunkChoice(msgspec.Struct, kw_only=True):
    """The piece of one choice."""

    index: int
    delta: ChatDelta
    finish_reason: str | None = None
    logprobs: TokenLogprobs | None = None


class ChatChunk(msgspec.Struct, kw_only=True):
    """One chunk of a streamed chat; the last may carry no choices and the usage."""

    id: str
    created: int
    model: str
    choices: list[ChatChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
