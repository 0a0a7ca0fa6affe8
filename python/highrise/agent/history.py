"""Floor 7, history: makes a conversation fit into the model's context by leaving its oldest parts out.

Whole turns go first (a question with everything up to the next one), then long tool results of the turn at hand are
cut, the oldest first. What the system said and the last question stay. Knows neither models nor templates.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import msgspec

from highrise.agent.context import text_of
from highrise.serve.protocol import ChatMessage

__all__ = ["fit_history"]

_PER_MESSAGE = 8
"""Tokens that a chat template puts around a message, about."""
_CUT = 400
"""Characters that are kept of a tool result that is cut."""


def fit_history(
    messages: Sequence[ChatMessage], *, limit: int, count: Callable[[str], int]
) -> tuple[list[ChatMessage], int]:
    """The messages that fit into `limit` tokens, in order, and how many turns were left out."""
    sizes = [_size(message, count) for message in messages]
    total = sum(sizes)
    starts = [place for place, message in enumerate(messages) if message.role == "user"]
    dropped: set[int] = set()
    turns = 0
    for start, end in itertools.pairwise(starts):
        if total <= limit:
            break
        places = [place for place in range(start, end) if messages[place].role not in ("system", "developer")]
        total -= sum(sizes[place] for place in places)
        dropped.update(places)
        turns += 1
    kept: list[ChatMessage] = []
    for place, message in enumerate(messages):
        if place in dropped:
            continue
        text = text_of(message)
        if total > limit and message.role == "tool" and len(text) > _CUT:
            message = msgspec.structs.replace(message, content=f"{text[:_CUT]}\n(cut: the conversation is too long)")
            total -= sizes[place] - _size(message, count)
        kept.append(message)
    return kept, turns


def _size(message: ChatMessage, count: Callable[[str], int]) -> int:
    calls = "".join(call.function.name + call.function.arguments for call in message.tool_calls or ())
    return count(text_of(message) + calls) + _PER_MESSAGE
