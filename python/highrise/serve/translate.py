"""Floor 6, translation: small pure pieces between the wire's fields and the engine's.

Messages to plain dicts, tool choices to a forced beginning, token log-probabilities to both of OpenAI's shapes, counts
to usage. Knows neither the engine's loop nor HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from highrise.serve.protocol import (
    ApiError,
    ChatMessage,
    ChatRequest,
    CompletionLogprobs,
    FunctionCall,
    FunctionDelta,
    NamedToolChoice,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
    new_id,
)
from highrise.serve.request import Output
from highrise.serve.tool_stream import ParsedCall

if TYPE_CHECKING:
    import numpy as np

    from highrise.encode import Tokenizer

__all__ = [
    "LegacyLogprobs",
    "UsageCounter",
    "chat_logprobs",
    "chat_reason",
    "plain_message",
    "shorten",
    "split_prompts",
    "token_text",
    "tool_call",
    "tool_deltas",
    "tools_of",
    "wire_reason",
]

_MAX_PROMPTS = 2048


def split_prompts(value: str | list[str | int | list[int]], param: str) -> list[str | list[int]]:
    """OpenAI's four forms (text, texts, ids, lists of ids) as a list of texts or id lists."""
    if isinstance(value, str):
        return [value]
    if not value:
        raise ApiError(f"'{param}' is empty.", param=param)
    if len(value) > _MAX_PROMPTS and not isinstance(value[0], int):
        raise ApiError(f"'{param}' holds {len(value)} entries; at most {_MAX_PROMPTS} are allowed.", param=param)
    if all(isinstance(one, int) for one in value):
        return [[one for one in value if isinstance(one, int)]]
    prompts: list[str | list[int]] = []
    for one in value:
        if isinstance(one, int):
            raise ApiError(f"'{param}' mixes token ids with other kinds; give one kind.", param=param)
        prompts.append(one)
    return prompts


def plain_message(message: ChatMessage, place: int) -> dict[str, Any]:
    """A message as chat templates read it: text content, OpenAI's newer role names under their older ones."""
    content = message.content
    if isinstance(content, list):
        texts = []
        for number, part in enumerate(content):
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ApiError(
                    f"This model reads text only, not '{part.get('type')}'.",
                    param=f"messages[{place}].content[{number}]",
                )
            texts.append(part["text"])
        content = "\n".join(texts)
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    plain: dict[str, Any] = {"role": role, "content": content or ""}
    if message.tool_calls:
        plain["tool_calls"] = [msgspec.to_builtins(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        plain["name"] = message.name
    return plain


def tools_of(request: ChatRequest) -> tuple[list[dict[str, Any]] | None, str]:
    """The tools to offer, and what the answer must begin with when a call is required."""
    choice = request.tool_choice
    if not request.tools or choice == "none":
        if isinstance(choice, NamedToolChoice) or choice == "required":
            raise ApiError("'tool_choice' asks for a call, but there are no tools.", param="tool_choice")
        return None, ""
    tools: list[dict[str, Any]] = [msgspec.to_builtins(tool) for tool in request.tools]
    if isinstance(choice, NamedToolChoice):
        name = choice.function.name
        if all(tool.function.name != name for tool in request.tools):
            raise ApiError(f"'tool_choice' names '{name}', which is not among the tools.", param="tool_choice")
        return tools, f'<tool_call>\n{{"name": "{name}", "arguments": '
    return tools, '<tool_call>\n{"name": "' if choice == "required" else ""


def tool_call(call: ParsedCall) -> ToolCall:
    """A parsed call under a fresh id."""
    return ToolCall(id=new_id("call"), function=FunctionCall(name=call.name, arguments=call.arguments_json))


def tool_deltas(number: int, call: ParsedCall) -> list[ToolCallDelta]:
    """A parsed call as a stream sends it: id, type and name once, then the arguments."""
    head = ToolCallDelta(
        index=number, id=new_id("call"), type="function", function=FunctionDelta(name=call.name, arguments="")
    )
    return [head, ToolCallDelta(index=number, function=FunctionDelta(arguments=call.arguments_json))]


def wire_reason(reason: str | None) -> str:
    """The engine's reason under OpenAI's names."""
    return "length" if reason == "length" else "stop"


def chat_reason(reason: str | None, has_calls: bool) -> str:
    """The reason of a chat choice."""
    return "tool_calls" if has_calls and reason == "stop" else wire_reason(reason)


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token alone as text; bytes that are no text of their own become a replacement sign."""
    text: str = tokenizer.token(token).decode("utf-8", "replace")
    return text


def chat_logprobs(tokenizer: Tokenizer, output: Output) -> list[TokenLogprob]:
    """The chat shape of an output's log-probabilities."""
    found = []
    for entry in output.logprobs or ():
        raw = tokenizer.token(entry.id)
        top = []
        for token, logprob in entry.top:
            other = tokenizer.token(token)
            top.append(TopLogprob(token=other.decode("utf-8", "replace"), logprob=logprob, bytes=list(other)))
        found.append(
            TokenLogprob(token=raw.decode("utf-8", "replace"), logprob=entry.logprob, bytes=list(raw), top_logprobs=top)
        )
    return found


class LegacyLogprobs:
    """Collects the completions shape of log-probabilities for one choice; `take` empties it, offsets run on."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._offset = 0
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def add(self, output: Output, prompt_ids: Sequence[int]) -> None:
        """Take an output; the first of an echoed prompt carries the prompt's own log-probabilities."""
        if output.prompt_logprobs is not None:
            for token, entry in zip(prompt_ids, output.prompt_logprobs, strict=True):
                self._one(token, None if entry is None else entry.logprob, () if entry is None else entry.top)
        for entry in output.logprobs or ():
            self._one(entry.id, entry.logprob, entry.top)

    def _one(self, token: int, logprob: float | None, top: Sequence[tuple[int, float]]) -> None:
        text = token_text(self._tokenizer, token)
        self._tokens.append(text)
        self._logprobs.append(logprob)
        if logprob is None:
            self._top.append(None)
        else:
            best = {token_text(self._tokenizer, other): value for other, value in top}
            self._top.append(best | {text: logprob})
        self._offsets.append(self._offset)
        self._offset += len(text)

    def take(self) -> CompletionLogprobs:
        """What was collected since the last time."""
        taken = CompletionLogprobs(
            tokens=self._tokens, token_logprobs=self._logprobs, top_logprobs=self._top, text_offset=self._offsets
        )
        self._clear()
        return taken


class UsageCounter:
    """Token counts of a request with `per_prompt` choices a prompt; each prompt is counted once, as OpenAI does."""

    def __init__(self, prompts: Sequence[Sequence[int]], per_prompt: int) -> None:
        self._prompt_tokens = sum(len(ids) for ids in prompts)
        self._per_prompt = per_prompt
        self._generated: dict[int, int] = {}
        self._cached: dict[int, int] = {}

    def count(self, index: int, output: Output) -> bool:
        """Take an output of choice `index`; whether it is the first of that choice."""
        first = index not in self._generated
        self._generated[index] = output.num_generated
        self._cached[index] = output.num_cached_tokens
        return first

    def total(self) -> Usage:
        """The counts so far."""
        cached = sum(count for index, count in self._cached.items() if index % self._per_prompt == 0)
        return Usage.of(self._prompt_tokens, sum(self._generated.values()), cached)


def shorten(vectors: np.ndarray[Any, Any], dimensions: int) -> np.ndarray[Any, Any]:
    """The first `dimensions` numbers of each row, at length 1 again."""
    import numpy as np

    if not 1 <= dimensions <= vectors.shape[1]:
        raise ApiError(
            f"'dimensions' is {dimensions}; this model's vectors have {vectors.shape[1]}.", param="dimensions"
        )
    short = vectors[:, :dimensions]
    unit: np.ndarray[Any, Any] = short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12)
    return unit
