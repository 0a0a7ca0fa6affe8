"""Floor 6, request: what goes into the engine and what comes out, token by token.

Knows neither the wire (`serve/protocol/`) nor the engine. Every value is checked once, here, by a sentence with
its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from highrise.core.errors import InputError

if TYPE_CHECKING:
    from highrise.serve.constraint import Constraint, Grammar

__all__ = ["FinishReason", "Output", "Priority", "Request", "Sampling", "TokenLogprob", "join"]

FinishReason = Literal["stop", "length", "cancelled"]

MAX_LOGPROBS = 20
MAX_STOPS = 16


def _between(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    if not math.isfinite(value) or value > high or (value <= low if above else value < low):
        span = f"above {low} and at most {high}" if above else f"between {low} and {high}"
        raise InputError(f"{name} is {value}; it must be {span}")


class Priority:
    """Who goes first: a smaller number before a larger one, first come first served within one."""

    TYPING = -1
    CHAT = 0
    BATCH = 1


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to choose the next token, and when to stop. The defaults are OpenAI's; `temperature=0` is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep only tokens at least this share as likely as the likeliest one."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or answer (Keskar et al. 2019)."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    """Same seed, same prompt, same settings: same tokens, whatever else is in the batch."""
    max_tokens: int | None = None
    """At most this many new tokens; None means up to the end of the context."""
    min_tokens: int = 0
    """End-of-text and stop ids are not chosen before this many new tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end the answer; they are not part of it."""
    stop_ids: tuple[int, ...] = ()
    """Token ids that end the answer, beside the model's own end-of-text ids."""
    ignore_eos: bool = False
    """Do not end at the model's own end-of-text ids (to measure speed)."""
    logprobs: int | None = None
    """Report the log-probability of each chosen token and of this many likeliest ones beside it."""
    echo: bool = False
    """Report the log-probabilities of the prompt too, when `logprobs` is given (the text is the caller's)."""
    logit_bias: dict[int, float] = {}
    """Added to the logits of these token ids before anything else; -100 forbids, 100 forces."""

    def __post_init__(self) -> None:
        _between("temperature", self.temperature, 0.0, 2.0)
        _between("top_p", self.top_p, 0.0, 1.0, above=True)
        _between("min_p", self.min_p, 0.0, 1.0)
        _between("repetition_penalty", self.repetition_penalty, 0.0, 10.0, above=True)
        _between("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _between("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 (keep all tokens) or positive")
        if self.max_tokens is not None and self.max_tokens < 0:
            raise InputError(f"max_tokens is {self.max_tokens}; it must not be negative")
        if self.min_tokens < 0:
            raise InputError(f"min_tokens is {self.min_tokens}; it must not be negative")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InputError(f"min_tokens {self.min_tokens} is larger than max_tokens {self.max_tokens}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise InputError(f"logprobs is {self.logprobs}; it must be between 0 and {MAX_LOGPROBS}")
        if len(self.stop) > MAX_STOPS:
            raise InputError(f"{len(self.stop)} stop strings were given; at most {MAX_STOPS} are allowed")
        if any(not text for text in self.stop):
            raise InputError("a stop string is empty; leave it out instead")
        for token, bias in self.logit_bias.items():
            _between(f"logit_bias of token {token}", bias, -100.0, 100.0)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to continue."""

    prompt_ids: list[int]
    sampling: Sampling = Sampling()
    id: str = ""
    """Unique among the requests in flight; the engine makes one when it is empty."""
    priority: int = Priority.CHAT
    salt: str = ""
    """Requests share cached pages only with requests of the same salt (one per tenant)."""
    adapter: str | None = None
    """Name of a loaded adapter; None runs the adapter the engine was loaded with, if any."""
    constraint: Constraint | None = None
    """What keeps the answer to a grammar; it is advanced as tokens come, so each request has its own."""
    grammar: Grammar | None = None
    """What the answer must look like: a runner makes the constraint from it; the engine itself does not read it."""
    session: str = ""
    """A new request of a session takes the place of the one before: that one is cancelled (an editor's next key)."""
    floating: tuple[int, int] | None = None
    """Prompt tokens from .. to that may be taken from an earlier request where they stood at another place (the text
    after the cursor); see `serve/floating.py`."""
    begins: str = ""
    """The answer must begin with this text (a begun word); it is not part of the outputs' `text`."""


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """Log-probability of one token, and the likeliest ones at its place, best first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Output(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What one step added to one request. `ids` and `text` are deltas; the last output carries a `finish_reason`."""

    request_id: str
    ids: tuple[int, ...] = ()
    """New tokens, the one that ended the answer included."""
    text: str = ""
    """New text that is certain: a possible beginning of a stop string is held back, stop strings are left out."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One for each of `ids` when asked for."""
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    """One for each prompt token (None for the first) on the first output, when `echo` and `logprobs` are asked for."""
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    """The stop string or the token id that ended the answer."""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    """Prompt tokens whose keys and values were found in the cache."""
    num_generated: int = 0
    queue_seconds: float = 0.0
    """From the engine's taking the request to the first step that computed something of it."""


def join(outputs: Sequence[Output]) -> Output:
    """Consecutive outputs of one request as one."""
    logprobs = [scored for output in outputs for scored in output.logprobs or ()]
    return msgspec.structs.replace(
        outputs[-1],
        ids=tuple(token for output in outputs for token in output.ids),
        text="".join(output.text for output in outputs),
        logprobs=tuple(logprobs) if outputs[0].logprobs is not None else None,
        prompt_logprobs=outputs[0].prompt_logprobs,
    )
