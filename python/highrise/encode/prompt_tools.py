"""Floor 3, prompt_tools: tool calls as models write them into their answers. Knows no template and no wire.

The form is Hermes' and Qwen's: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. Small models forget the
tags; a whole answer that is one such JSON object, in a code fence or not, counts too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

import msgspec

__all__ = ["CLOSE", "OPEN", "ToolCall", "describe_tools", "parse_tool_calls", "write_tool_calls"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_FENCED = re.compile(r"\s*```(?:json|xml|tool_call)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
_DECODER = json.JSONDecoder()


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asks for; `arguments_json` is a JSON object as text."""

    name: str
    arguments_json: str


def parse_tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """What the model said besides, and its calls in order. What cannot be read as a call stays in the text."""
    calls: list[ToolCall] = []
    kept: list[str] = []
    at = 0
    while (start := text.find(OPEN, at)) >= 0:
        body = start + len(OPEN)
        body += len(text[body:]) - len(text[body:].lstrip())
        call, end = _read_call(text, body)
        if call is None:
            kept.append(text[at:body])
            at = body
            continue
        calls.append(call)
        kept.append(text[at:start])
        at = end
        rest = text[at:].lstrip()
        if rest.startswith(CLOSE):
            at = len(text) - len(rest) + len(CLOSE)
    kept.append(text[at:])
    if calls:
        return "".join(kept).strip(), calls
    fenced = _FENCED.fullmatch(text)
    bare = (fenced[1] if fenced is not None else text).strip()
    if bare.startswith("{"):
        call, end = _read_call(bare, 0)
        if call is not None and not bare[end:].strip():
            return "", [call]
    return text, []


def _read_call(text: str, at: int) -> tuple[ToolCall | None, int]:
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None, at
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            return None, at
    if not isinstance(arguments, dict):
        return None, at
    return ToolCall(value["name"], json.dumps(arguments, ensure_ascii=False)), end


def write_tool_calls(calls: Sequence[Mapping[str, object]]) -> str:
    """Calls (each with name and arguments) in the form that `parse_tool_calls` reads."""
    written = [{"name": call["name"], "arguments": call["arguments"]} for call in calls]
    return "\n".join(f"{OPEN}\n{json.dumps(call, ensure_ascii=False)}\n{CLOSE}" for call in written)


def describe_tools(tools: Sequence[Mapping[str, object]]) -> str:
    """The tools as a part of the system message, for templates that do not mention them; the words are Qwen's."""
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        f"You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{lines}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    )
