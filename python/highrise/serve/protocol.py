"""Floor 6, wire: every message of the OpenAI protocol (and of llama.cpp's /infill) that Highrise speaks, as structs.

Requests tolerate fields that they do not know, as OpenAI's servers do, and refuse a wrong type with the name of the
field. Answers carry exactly the fields that the official clients read. Knows nothing of engines, prompts or HTTP.
Sources: openai-python's types, vLLM's extra sampling fields, llama.cpp's server README.
"""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "ApiError",
    "Chat",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatDelta",
    "ChatMessage",
    "ChatRequest",
    "Completion",
    "CompletionChoice",
    "CompletionLogprobs",
    "CompletionRequest",
    "DetokenizeRequest",
    "Detokenized",
    "Embedding",
    "EmbeddingList",
    "EmbeddingRequest",
    "ErrorAnswer",
    "FunctionCall",
    "InfillAnswer",
    "InfillExtra",
    "InfillRequest",
    "JsonSchemaFormat",
    "Model",
    "ModelList",
    "ResponseFormat",
    "SamplingFields",
    "StreamOptions",
    "StructuredOutputs",
    "TokenLogprob",
    "TokenLogprobs",
    "TokenizeRequest",
    "Tokenized",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "Usage",
    "decode",
    "encode",
    "encode_floats",
    "new_id",
    "now",
]

T = TypeVar("T")


class ApiError(Exception):
    """A refusal in OpenAI's shape; `status` is the HTTP status, `headers` go out with it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers or {}

    def renamed(self, names: dict[str, str]) -> ApiError:
        """The same about the field that the client called otherwise; `names` are ours and theirs."""
        theirs = names.get(self.param or "")
        if theirs is None or self.param is None:
            return self
        message = re.sub(rf"\b{self.param}\b", theirs, self.message)
        return ApiError(message, status=self.status, type=self.type, param=theirs, code=self.code, headers=self.headers)

    def body(self) -> bytes:
        """The answer's body, also the data of an error in the middle of a stream."""
        return encode(ErrorAnswer(ErrorBody(message=self.message, type=self.type, param=self.param, code=self.code)))


class ErrorBody(msgspec.Struct):
    """What went wrong, whose fault it was, and which field caused it."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(msgspec.Struct):
    """The body of every answer that is not a success."""

    error: ErrorBody


# ---------------------------------------------------------------------------------------------------------- models


class Model(msgspec.Struct, kw_only=True):
    """One model of /v1/models; `root` (the model's own name, when asked by another) and `max_model_len` are vLLM's."""

    id: str
    root: str | None = None
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "highrise"
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    """The answer of /v1/models."""

    data: list[Model]
    object: Literal["list"] = "list"


# -------------------------------------------------------------------------------------------------------- requests


class StreamOptions(msgspec.Struct):
    """`include_usage` asks for a last chunk with the token counts."""

    include_usage: bool | None = None


class JsonSchemaFormat(msgspec.Struct, kw_only=True):
    """The schema of an answer; `strict` is always so here."""

    schema: dict[str, Any] | None = None
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """How the answer is to be shaped: "text", "json_object", or "json_schema" with one."""

    type: str = "text"
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """vLLM's way to shape an answer; one of the fields."""

    json: str | bool | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """What completions and chat have in common: OpenAI's sampling fields, then vLLM's."""

    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    priority: int | None = None
    min_tokens: int | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    best_of: int | None = None


class InfillExtra(msgspec.Struct):
    """A piece of another file that the model may look at while it fills in."""

    text: str
    filename: str = ""


class CompletionRequest(SamplingFields, kw_only=True):
    """POST /v1/completions. `suffix` asks for the middle; `path`, `repository` and `input_extra` are Highrise's."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: int | None = None
    path: str | None = None
    repository: str | None = None
    input_extra: list[InfillExtra] | None = None


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


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """POST /v1/embeddings: texts, or token ids of the embedding model."""

    input: str | list[str | int | list[int]]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


class InfillRequest(msgspec.Struct, kw_only=True):
    """POST /infill, llama.cpp's: `prompt` is the begun line after the prefix; `n_predict` 0 only warms the cache."""

    input_prefix: str
    input_suffix: str
    input_extra: list[InfillExtra] | None = None
    prompt: str | None = None
    n_predict: int | None = None
    n_indent: int | None = None
    n_cmpl: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    stream: bool | None = None
    t_max_predict_ms: float | None = None
    cache_prompt: bool | None = None
    model: str = ""
    path: str | None = None
    repository: str | None = None


class TokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /tokenize: vLLM's `prompt` or `messages`, or llama.cpp's `content`."""

    model: str = ""
    prompt: str | None = None
    content: str | None = None
    messages: list[ChatMessage] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True):
    """POST /detokenize."""

    tokens: list[int]
    model: str = ""


# --------------------------------------------------------------------------------------------------------- answers


class CachedTokens(msgspec.Struct):
    """How many prompt tokens came out of the prefix cache."""

    cached_tokens: int = 0


class Usage(msgspec.Struct, kw_only=True):
    """Token counts of one request, all choices together."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: CachedTokens | None = None

    @classmethod
    def of(cls, prompt: int, completion: int, cached: int = 0) -> Usage:
        """Counts with their sum."""
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=CachedTokens(cached),
        )


class CompletionLogprobs(msgspec.Struct, kw_only=True):
    """The old shape of log-probabilities, parallel lists; the first token of an echoed prompt has none."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct, kw_only=True):
    """One text, whole or a piece of a stream."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, kw_only=True):
    """The answer of /v1/completions, and each of its chunks."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET


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


class Embedding(msgspec.Struct, kw_only=True):
    """One vector: floats, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Token counts of an embedding request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    """The answer of /v1/embeddings."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


class InfillSettings(msgspec.Struct):
    """The part of llama.cpp's settings that its editors read."""

    n_ctx: int


class InfillTimings(msgspec.Struct, kw_only=True):
    """llama.cpp's timings: n tokens, milliseconds, tokens a second, for the prompt and for what was predicted."""

    prompt_n: int = 0
    prompt_ms: float = 0.0
    prompt_per_second: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    predicted_per_second: float = 0.0


class InfillAnswer(msgspec.Struct, kw_only=True):
    """The answer of /infill, and each chunk of its stream (`stop` is true in the last)."""

    content: str
    stop: bool
    model: str = ""
    index: int = 0
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    tokens_cached: int = 0
    truncated: bool = False
    stop_type: str = "none"
    timings: InfillTimings | UnsetType = UNSET
    generation_settings: InfillSettings | UnsetType = UNSET


class Tokenized(msgspec.Struct, kw_only=True):
    """The answer of /tokenize; `tokens` is llama.cpp's name too."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | UnsetType = UNSET


class Detokenized(msgspec.Struct):
    """The answer of /detokenize under both servers' names."""

    prompt: str
    content: str


# ----------------------------------------------------------------------------------------------------- conversions

_encoder = msgspec.json.Encoder()
_decoders: dict[object, msgspec.json.Decoder[Any]] = {}


def encode(value: object) -> bytes:
    """A struct as JSON."""
    return _encoder.encode(value)


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as a request struct; what does not fit is an `ApiError` that names the field."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        value: T = decoder.decode(_whole_characters(body))
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        if missing := re.search(r"missing required field `(\w+)`", reason):
            param = f"{param}.{missing[1]}" if param else missing[1]
        where = f" for '{param}'" if param else ""
        raise ApiError(f"Invalid request{where}: {reason}.", param=param, code="invalid_type") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"The body of the request is not valid JSON: {error}.", code="invalid_json") from error
    except RecursionError as error:
        raise ApiError("The body of the request is nested too deeply.", code="invalid_json") from error
    return value


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _whole_characters(body: bytes) -> bytes:
    """Half of a surrogate pair becomes U+FFFD: editors that cut a text between two UTF-16 units send such halves."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body

    return _ESCAPE.sub(lambda found: b"\\ufffd" if found["half"] else found[0], body)


def encode_floats(vector: Sequence[float], form: str) -> list[float] | str:
    """A vector in the form that the client asked for; numpy arrays are written without a detour over floats."""
    if form != "base64":
        return [float(value) for value in vector]
    import numpy as np

    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f4").tobytes()).decode("ascii")


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-5f0c…`."""
    return f"{prefix}-{uuid.uuid4().hex}"


def now() -> int:
    """Seconds since 1970, as the wire wants them."""
    return int(time.time())
