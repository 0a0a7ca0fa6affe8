"""Floor 6, wire: every message of the OpenAI protocol (and of llama.cpp's /infill) that Highrise speaks, as structs.

Requests tolerate fields that they do not know, as OpenAI's servers do, and refuse a wrong type with the name of the
field. Answers carry exactly the fields that the official clients read. Knows nothing of engines, prompts or HTTP.
Sources: openai-python's types, vLLM's extra sampling fields, llama.cpp's server README.
"""

from __future__ import annotations

from highrise.serve.protocol.chat import (
    AssistantMessage,
    Chat,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    FunctionCall,
    FunctionDefinition,
    FunctionDelta,
    NamedFunction,
    NamedToolChoice,
    TokenLogprob,
    TokenLogprobs,
    Tool,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
)
from highrise.serve.protocol.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from highrise.serve.protocol.embeddings import Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage
from highrise.serve.protocol.infill import InfillAnswer, InfillExtra, InfillRequest, InfillSettings, InfillTimings
from highrise.serve.protocol.models import Model, ModelList
from highrise.serve.protocol.sampling import (
    CachedTokens,
    JsonSchemaFormat,
    ResponseFormat,
    SamplingFields,
    StreamOptions,
    StructuredOutputs,
    Usage,
)
from highrise.serve.protocol.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from highrise.serve.protocol.wire import ApiError, ErrorAnswer, ErrorBody, decode, encode, encode_floats, new_id, now

__all__ = [
    "ApiError",
    "AssistantMessage",
    "CachedTokens",
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
    "EmbeddingUsage",
    "ErrorAnswer",
    "ErrorBody",
    "FunctionCall",
    "FunctionDefinition",
    "FunctionDelta",
    "InfillAnswer",
    "InfillExtra",
    "InfillRequest",
    "InfillSettings",
    "InfillTimings",
    "JsonSchemaFormat",
    "Model",
    "ModelList",
    "NamedFunction",
    "NamedToolChoice",
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
