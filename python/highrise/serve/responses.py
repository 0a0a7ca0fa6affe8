"""Floor 6, responses: /v1/responses said as a chat, and a chat's answer said as a response.

So it works over every backend, the agent's layers and other servers included. Nothing is kept: a request brings the
whole conversation. Knows no HTTP; the stream is `serve/response_stream.py`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET

from highrise.serve.protocol import (
    ApiError,
    CallItem,
    Chat,
    ChatMessage,
    ChatRequest,
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    IncompleteDetails,
    InputTokenDetails,
    JsonSchemaFormat,
    MessageItem,
    NamedFunction,
    NamedToolChoice,
    ResponseAnswer,
    ResponseFormat,
    ResponseRequest,
    ResponseUsage,
    StreamOptions,
    Tool,
    ToolCall,
    Usage,
    new_id,
    now,
)

__all__ = ["CHAT_NAMES", "begin", "chat_of", "complete", "finish"]

T = TypeVar("T")

CHAT_NAMES = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
    "response_format.json_schema.schema": "text.format.schema",
}
"""Fields of a chat, and of the request that they came from."""

_LOGPROBS = "message.output_text.logprobs"
_TEXT_PARTS = ("input_text", "output_text", "text")


class _Message(msgspec.Struct, kw_only=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]


class _Call(msgspec.Struct, kw_only=True):
    call_id: str
    name: str
    arguments: str


class _Result(msgspec.Struct, kw_only=True):
    call_id: str
    output: str | list[dict[str, Any]]


class _Function(msgspec.Struct, kw_only=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


def chat_of(request: ResponseRequest) -> ChatRequest:
    """The chat that this request means; `ApiError` names what cannot be said as one."""
    for field in ("previous_response_id", "conversation"):
        if getattr(request, field) is not None:
            raise ApiError(
                f"'{field}' cannot be followed: this server keeps no conversations; send the whole of it as 'input'.",
                param=field,
            )
    if request.background:
        raise ApiError("'background' is not possible: this server keeps no answers; stream them.", param="background")
    messages = [] if request.instructions is None else [ChatMessage(role="system", content=request.instructions)]
    if isinstance(request.input, str):
        messages.append(ChatMessage(role="user", content=request.input))
    else:
        for place, item in enumerate(request.input):
            _add(messages, item, f"input[{place}]")
    wants_logprobs = _LOGPROBS in (request.include or ())
    return ChatRequest(
        messages=messages,
        model=request.model,
        max_completion_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        tools=_tools(request) or None,
        tool_choice=_tool_choice(request),
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_format(request),
        logprobs=wants_logprobs or None,
        top_logprobs=request.top_logprobs if wants_logprobs else None,
        user=request.user,
        use_context=request.use_context,
        stream=request.stream,
        stream_options=StreamOptions(include_usage=True) if request.stream else None,
    )


def _add(messages: list[ChatMessage], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        message = _read(item, _Message, where)
        messages.append(ChatMessage(role=message.role, content=_text(message.content, f"{where}.content")))
    elif kind == "function_call":
        call = _read(item, _Call, where)
        asked = ToolCall(id=call.call_id, function=FunctionCall(name=call.name, arguments=call.arguments))
        last = messages[-1] if messages else None
        if last is not None and last.role == "assistant" and (last.tool_calls or last.content):
            last.tool_calls = [*(last.tool_calls or ()), asked]
        else:
            messages.append(ChatMessage(role="assistant", tool_calls=[asked]))
    elif kind == "function_call_output":
        result = _read(item, _Result, where)
        text = _text(result.output, f"{where}.output")
        messages.append(ChatMessage(role="tool", tool_call_id=result.call_id, content=text))
    elif kind != "reasoning":  # what another model thought is no part of the conversation
        raise ApiError(f"An item of type '{kind}' cannot be read here.", param=f"{where}.type")


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for number, part in enumerate(content):
        text = part.get("refusal") if part.get("type") == "refusal" else part.get("text")
        if part.get("type") not in (*_TEXT_PARTS, "refusal") or not isinstance(text, str):
            raise ApiError(f"This model reads text only, not '{part.get('type')}'.", param=f"{where}[{number}]")
        texts.append(text)
    return "\n".join(texts)


def _read(value: dict[str, Any], kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ApiError(f"Invalid request for '{where}': {error}.", param=where, code="invalid_type") from error


def _tools(request: ResponseRequest) -> list[Tool]:
    """The functions; tools of other types are the business of OpenAI's own servers and are not offered."""
    tools = []
    for place, tool in enumerate(request.tools or ()):
        if tool.get("type") == "function":
            one = _read(tool, _Function, f"tools[{place}]")
            definition = FunctionDefinition(
                name=one.name, description=one.description, parameters=one.parameters, strict=one.strict
            )
            tools.append(Tool(function=definition))
    return tools


def _tool_choice(request: ResponseRequest) -> Literal["none", "auto", "required"] | NamedToolChoice | None:
    choice = request.tool_choice
    if choice is None or choice == "auto":
        return None if choice is None else "auto"
    if choice == "none" or choice == "required":
        return "none" if choice == "none" else "required"
    if isinstance(choice, dict) and choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return NamedToolChoice(NamedFunction(choice["name"]))
    raise ApiError("'tool_choice' must be 'none', 'auto', 'required' or one function.", param="tool_choice")


def _format(request: ResponseRequest) -> ResponseFormat | None:
    wanted = None if request.text is None else request.text.format
    if wanted is None:
        return None
    kind = str(wanted.get("type", "text"))
    if kind != "json_schema":
        return ResponseFormat(type=kind)
    return ResponseFormat(type=kind, json_schema=_read(wanted, JsonSchemaFormat, "text.format"))


# -------------------------------------------------------------------------------------------------------------- answers


def begin(request: ResponseRequest, model: str) -> ResponseAnswer:
    """The answer before anything is said: an id, and what was asked."""
    return ResponseAnswer(
        id=new_id("resp"),
        created_at=now(),
        model=model,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        temperature=request.temperature,
        text=request.text,
        tool_choice=request.tool_choice or "auto",
        tools=request.tools or [],
        top_p=request.top_p,
    )


def complete(request: ResponseRequest, chat: Chat) -> ResponseAnswer:
    """The answer of a chat as a response."""
    answer = begin(request, chat.model)
    choice = chat.choices[0]
    if choice.message.content:
        part = ContentPart(text=choice.message.content, logprobs=choice.logprobs.content if choice.logprobs else [])
        answer.output.append(MessageItem(id=new_id("msg"), content=[part]))
    for call in choice.message.tool_calls or () if choice.message.tool_calls is not UNSET else ():
        answer.output.append(
            CallItem(id=new_id("fc"), call_id=call.id, name=call.function.name, arguments=call.function.arguments)
        )
    finish(answer, choice.finish_reason, chat.usage)
    return answer


def finish(answer: ResponseAnswer, reason: str | None, usage: Usage | None) -> None:
    """Set status and counts of an answer that has ended for the chat's `reason`."""
    answer.status = "completed"
    if reason in ("length", "content_filter"):
        answer.status = "incomplete"
        answer.incomplete_details = IncompleteDetails("max_output_tokens" if reason == "length" else "content_filter")
        for item in answer.output[-1:]:
            item.status = "incomplete"
    if usage is not None:
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        answer.usage = ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokenDetails(cached_tokens=cached),
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )
