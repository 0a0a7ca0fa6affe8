"""Floor 2, quality: a score in [0, 1] with its parts, from surface signals that need no model.

Each part is in [0, 1] and the score is their weighted mean; `docs/floors/2-data.md` has the table. The signals are
those of StarCoder and CodeParrot (comment ratio, line lengths, alphanumeric share), made continuous. Knows nothing of
filters.
"""

from __future__ import annotations

import re
from typing import Any

from highrise.core.native import rust
from highrise.data.languages import CODE, PROSE

__all__ = ["WEIGHTS", "comment_share", "quality", "quality_parts", "sample_signals"]

WEIGHTS = {
    "length": 1.0,
    "lines": 1.0,
    "letters": 1.0,
    "unique": 1.5,
    "comments": 1.5,
    "names": 1.0,
    "nesting": 0.5,
    "docstrings": 1.0,
    "syntax": 1.0,
    "lint": 1.0,
}

_DOCUMENTED = re.compile(r":[ \t]*(?:#[^\n]*)?\n[ \t]+[rRuU]?(?:\"\"\"|''')")
_SAMPLE = 20_000
Signals = Any
"""The native counts of `rust/data/src/signals.rs` (no stubs)."""


def _band(value: float, low: float, good_low: float, good_high: float, high: float) -> float:
    """1 inside [good_low, good_high], falling linearly to 0 at low and high."""
    if good_low <= value <= good_high:
        return 1.0
    if value < good_low:
        return max(0.0, (value - low) / (good_low - low)) if good_low > low else 0.0
    return max(0.0, (high - value) / (high - good_high)) if high > good_high else 0.0


def comment_share(language: str, text: str, found: Signals | None = None) -> float:
    """Share of the characters of a code file that stand in comments and docstrings, from the first 20,000; `found` are
    their signals, if they were asked for already.
    """
    sample = text[:_SAMPLE]
    found = rust.data.signals_of(sample) if found is None else found
    inside = found.documented if language == "python" else 0
    share: float = (inside + found.commented) / max(found.solid, 1)
    return min(1.0, share)


def sample_signals(text: str) -> Signals:
    """What the native module counts in the first 20,000 characters, all that the score looks at."""
    found: Signals = rust.data.signals_of(text[:_SAMPLE])
    return found


def quality_parts(
    language: str,
    text: str,
    *,
    error_share: float = 0.0,
    commented: float | None = None,
    found: Signals | None = None,
) -> dict[str, float]:
    """The parts of the score. Only the first 20,000 characters are looked at; `error_share` is the parser's,
    `commented` what `comment_share` and `found` what `sample_signals` said, if they were asked already.
    """
    found = sample_signals(text) if found is None else found
    filled = max(found.filled, 1)
    prose = language in PROSE
    parts = {
        "length": _band(found.filled, 0, 20, 1_000, 10_000),
        "lines": _band(max(found.solid, 1) / filled, 2, 15, 400 if prose else 50, 2_000 if prose else 140),
        "letters": _band(found.letters / max(found.solid, 1), 0.2, 0.5, 0.95, 1.05),
        "unique": _band(found.unique / filled, 0.3, 0.85, 1, 1),
    }
    if language in CODE:
        share = comment_share(language, text, found) if commented is None else commented
        parts["comments"] = _band(share, -0.05, 0.1, 0.45, 0.95)
        parts["names"] = _band(found.name_letters / max(found.names, 1), 2, 6, 12, 30)
        parts["nesting"] = _band(found.deep / filled, -1, 0, 0.15, 0.8)
        parts["syntax"] = _band(error_share, -1, 0, 0, 0.2)
    if language == "python" and found.definitions:
        documented = len(_DOCUMENTED.findall(text[:_SAMPLE]))
        parts["docstrings"] = _band(documented / found.definitions, -0.25, 0.75, 1_000, 1_001)
    return {name: round(value, 3) for name, value in parts.items()}


def quality(parts: dict[str, float]) -> float:
    """The weighted mean of the parts that there are, rounded to three places."""
    total = sum(WEIGHTS[name] for name in parts)
    return round(sum(WEIGHTS[name] * value for name, value in parts.items()) / total, 3) if total else 0.0
