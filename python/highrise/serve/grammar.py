"""Floor 6, grammar: what an answer must look like, read from the many fields in which clients say it.

OpenAI's `response_format` and forced tools, vLLM's `structured_outputs` and its older `guided_*`. Knows the wire and
nothing of the library that enforces it (`serve/adapters/llguidance.py`), but for the `%json` of its Lark dialect.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from typing import Any

from highrise.serve.constraint import JSON_STYLE, Grammar
from highrise.serve.protocol import ApiError, ChatRequest, NamedToolChoice, SamplingFields, StructuredOutputs, Tool

__all__ = ["grammar_of", "with_tools"]

_MAX_BYTES = 1 << 18
_CALL_OPENS = "<tool_call>"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_ ")


def grammar_of(request: SamplingFields) -> Grammar | None:
    """The grammar of an answer, None when anything may come; `ApiError` for a contradiction or a field left out."""
    found = [one for one in (_of_response_format(request), *_of_structured(request), *_of_guided(request)) if one]
    if len(found) > 1:
        names = " and ".join(f"'{one.param}'" for one in found)
        raise ApiError(f"{names} each say what the answer must look like; give one.", param=found[1].param)
    if found and len(found[0].text.encode("utf-8", "replace")) > _MAX_BYTES:
        raise ApiError(f"'{found[0].param}' is larger than {_MAX_BYTES >> 10} KiB.", param=found[0].param)
    return found[0] if found else None


def _of_response_format(request: SamplingFields) -> Grammar | None:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return None
    param = "response_format"
    if wanted.type == "json_object":
        return _json({"type": "object"}, param)
    if wanted.type == "json_schema":
        if wanted.json_schema is None or wanted.json_schema.schema is None:
            raise ApiError(
                "'response_format' of type 'json_schema' needs 'json_schema' with a 'schema'.",
                param="response_format.json_schema",
            )
        return _json(wanted.json_schema.schema, "response_format.json_schema.schema")
    raise ApiError(
        f"'response_format' of type '{wanted.type}' does not exist; there are 'text', 'json_object' and 'json_schema'.",
        param=param,
    )


def _of_structured(request: SamplingFields) -> list[Grammar]:
    wanted = request.structured_outputs
    return [] if wanted is None else _fields(wanted, "structured_outputs.")


def _of_guided(request: SamplingFields) -> list[Grammar]:
    older = StructuredOutputs(
        json=request.guided_json,
        regex=request.guided_regex,
        choice=request.guided_choice,
        grammar=request.guided_grammar,
    )
    return _fields(older, "guided_")


def _fields(wanted: StructuredOutputs, prefix: str) -> list[Grammar]:
    found = []
    if wanted.json is not None:
        found.append(_json(wanted.json, f"{prefix}json"))
    if wanted.json_object:
        found.append(_json({"type": "object"}, f"{prefix}json_object"))
    if wanted.regex is not None:
        found.append(Grammar("regex", wanted.regex, f"{prefix}regex"))
    if wanted.choice is not None:
        if not wanted.choice:
            raise ApiError(f"'{prefix}choice' is empty; give at least one text.", param=f"{prefix}choice")
        found.append(Grammar("regex", "|".join(map(_literally, wanted.choice)), f"{prefix}choice"))
    if wanted.grammar is not None:
        found.append(Grammar("lark", wanted.grammar, f"{prefix}grammar"))
    return found


def _json(schema: str | bool | dict[str, Any], param: str) -> Grammar:
    return Grammar("json", schema if isinstance(schema, str) else json.dumps(schema), param)


def _literally(text: str) -> str:
    """A regular expression of exactly this text."""
    return "".join(letter if letter in _PLAIN else f"\\x{{{ord(letter):x}}}" for letter in text)


# ----------------------------------------------------------------------------------------------------------- tool calls


def with_tools(
    request: ChatRequest, answer: Grammar | None, *, forced: str, special_tokens: Container[str]
) -> Grammar | None:
    """The grammar of a chat answer: a call when one is `forced` (the prompt's last words), else `answer` or a call.

    A call ends with its last brace: the closing mark that models write behind it adds nothing.
    """
    tools = request.tools or []
    if forced:
        if isinstance(request.tool_choice, NamedToolChoice):
            name = request.tool_choice.function.name
            tool = next(one for one in tools if one.function.name == name)
            return Grammar("lark", f'start: {_arguments(tool)} "}}"', "tools")
        return Grammar("lark", _rules("start", tools, '"'), "tools")
    if answer is None or not tools or request.tool_choice == "none":
        return answer
    if answer.kind != "json":
        return answer
    opens = _CALL_OPENS if _CALL_OPENS in special_tokens else json.dumps(_CALL_OPENS)
    schema = json.loads(answer.text) if answer.text else {}
    calls = _rules("call", tools, '"\\n{\\"name\\": \\"')
    return Grammar("lark", f"start: {_json_in_lark(schema)} | {opens} call\n{calls}", answer.param)


def _rules(name: str, tools: Sequence[Tool], begin: str) -> str:
    """A rule that is a call of one of the tools; `begin` is the open string literal before its name."""
    rules = [
        f'call_{number}: {begin}{json.dumps(tool.function.name)[1:-1]}\\", \\"arguments\\": " {_arguments(tool)} "}}"'
        for number, tool in enumerate(tools)
    ]
    return "\n".join([f"{name}: {' | '.join(f'call_{number}' for number in range(len(tools)))}", *rules])


def _arguments(tool: Tool) -> str:
    schema = tool.function.parameters
    return _json_in_lark({"type": "object"} if not schema else {"type": "object", **schema})


def _json_in_lark(schema: Any) -> str:
    return f"%json {json.dumps({'x-guidance': JSON_STYLE, **schema} if isinstance(schema, dict) else schema)}"
