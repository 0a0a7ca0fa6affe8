"""Floor 6, wire: llama.cpp's /infill."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

__all__ = ["InfillAnswer", "InfillExtra", "InfillRequest", "InfillSettings", "InfillTimings"]


class InfillExtra(msgspec.Struct):
    """A piece of another file that the model may look at while it fills in."""

    text: str
    filename: str = ""


class InfillRequest(msgspec.Struct, kw_only=True):
    """POST /infill, llama.cpp's: `prompt` is the begun line after the prefix; `n_predict` 0 only warms the cache."""

    input_prefix: str
    input_suffix: str
    input_extra: list[InfillExtra] | None = None
    session: str | None = None
    """An editor's own name for itself: its next request takes the place of the one under way."""
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


class InfillSettings(msgspec.Struct):
    """The part of llama.cpp's settings that its editors read."""

    n_ctx: int = 0
    """0: not told, as by llama.cpp itself since it says so elsewhere."""


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
