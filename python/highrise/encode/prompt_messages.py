"""Floor 3, prompt_messages: messages of the OpenAI protocol as chat templates want them. Knows no tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from highrise.core.errors import InputError
from highrise.encode import prompt_tools

__all__ = ["Message", "calls_in_content", "plain_message"]

Message = Mapping[str, object]


def plain_message(message: Message) -> dict[str, object]:
    """A message of the OpenAI protocol as templates want it: content is text, arguments of tool calls are objects."""
    role = message.get("role")
    if not isinstance(role, str):
        raise InputError(f'a message needs a role such as "user", found {role!r}')
    plain: dict[str, object] = {key: value for key, value in message.items() if value is not None}
    plain["role"] = role
    content = message.get("content")
    if isinstance(content, list | tuple):
        content = "".join(_text_of(part) for part in content)
    if content is not None and not isinstance(content, str):
        raise InputError(f"the content of a {role} message must be text or a list of text parts, found {content!r}")
    plain["content"] = content or ""
    calls = message.get("tool_calls")
    if isinstance(calls, list | tuple) and calls:
        plain["tool_calls"] = [_plain_call(call) for call in calls]
    else:
        plain.pop("tool_calls", None)
    return plain


def _text_of(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else part
    raise InputError(f"a part of a message's content is {kind!r}; only text is supported")


def _plain_call(call: object) -> dict[str, object]:
    if not isinstance(call, Mapping):
        _bad_call(call)
    function = call.get("function", call)
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        _bad_call(call)
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            _bad_call(call)
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def calls_in_content(message: dict[str, object]) -> dict[str, object]:
    """The tool calls of a message written into its content, for templates that would leave them out."""
    calls = message.pop("tool_calls", None)
    if not isinstance(calls, list):
        return message
    written = prompt_tools.write_tool_calls([call["function"] for call in calls])
    return {**message, "content": "\n".join(part for part in (str(message["content"]), written) if part)}


def _bad_call(call: object) -> NoReturn:
    raise InputError(f"a tool call needs a function with a name and arguments as a JSON object, found {call!r}")
