"""Floor 6, wire: /v1/completions."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from highrise.serve.protocol.infill import InfillExtra
from highrise.serve.protocol.sampling import SamplingFields, Usage

__all__ = ["Completion", "CompletionChoice", "CompletionLogprobs", "CompletionRequest"]


class CompletionRequest(SamplingFields, kw_only=True):
    """POST /v1/completions. `suffix` asks for the middle; `path`, `repository` and `input_extra` are Highrise's."""

    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    session: str | None = None
    """An editor's own name for itself: its next request takes the place of the one under way."""
    echo: bool | None = None
    logprobs: int | None = None
    path: str | None = None
    repository: str | None = None
    input_extra: list[InfillExtra] | None = None


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
