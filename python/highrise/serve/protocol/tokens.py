"""Floor 6, wire: /tokenize and /detokenize, vLLM's and llama.cpp's."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from highrise.serve.protocol.chat import ChatMessage

__all__ = ["DetokenizeRequest", "Detokenized", "TokenizeRequest", "Tokenized"]


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
