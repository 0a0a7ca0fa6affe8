"""Floor 6, engine statistics: what an engine did so far and where it stands, as one snapshot."""

from __future__ import annotations

import msgspec

__all__ = ["EngineStats"]


class EngineStats(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What the engine did so far, and where it stands."""

    num_running: int
    num_waiting: int
    page_usage: float
    """Share of the pages that sequences hold, 0 to 1."""
    num_pages: int
    num_free_pages: int
    queried_tokens: int
    """Prompt tokens that were looked up in the prefix cache."""
    cached_tokens: int
    """Prompt tokens that were found there."""
    moved_tokens: int
    """Prompt tokens that were taken over from another place of an earlier prompt."""
    drafted_tokens: int
    """Tokens that were guessed ahead."""
    accepted_tokens: int
    """Guesses that were right."""
    num_preemptions: int
    prompt_tokens: int
    """Prompt tokens computed."""
    generated_tokens: int
    num_steps: int
    step_seconds: float
    running_adapters: tuple[str, ...]
    """Names of the adapters that running requests ask for."""
    waiting_adapters: tuple[str, ...]
