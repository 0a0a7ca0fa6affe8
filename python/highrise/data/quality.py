"""Floor 2, quality: a score in [0, 1] with its parts, from surface signals that need no model.

Each part is in [0, 1] and the score is their weighted mean; `docs/floors/2-data.md` has the table. The signals are
those of StarCoder and CodeParrot (comment ratio, line lengths, alphanumeric share), made continuous. Knows nothing of
filters.
"""

from __future__ import annotations

import re

from highrise.data.languages import CODE, PROSE

__all__ = ["WEIGHTS", "quality", "quality_parts"]

WEIGHTS = {"length": 1.0, "lines": 1.0, "letters": 1.0, "unique": 1.5, "comments": 1.5, "names": 1.0}

_LINE_COMMENT = re.compile(r"^\s*(?:#(?!!)|//|/\*|\*[ /]|--\s|;|%)", re.M)
_DOCSTRING = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\')(.*?)\1', re.M | re.S)
_NAME = re.compile(r"\b[A-Za-z_][A-Za-z_0-9]{0,63}\b")
_SAMPLE = 20_000


def _band(value: float, low: float, good_low: float, good_high: float, high: float) -> float:
    """1 inside [good_low, good_high], falling linearly to 0 at low and high."""
    if good_low <= value <= good_high:
        return 1.0
    if value < good_low:
        return max(0.0, (value - low) / (good_low - low)) if good_low > low else 0.0
    return max(0.0, (high - value) / (high - good_high)) if high > good_high else 0.0


def quality_parts(language: str, text: str) -> dict[str, float]:
    """The parts of the score. Only the first 20,000 characters are looked at."""
    sample = text[:_SAMPLE]
    lines = [line.strip() for line in sample.split("\n")]
    filled = [line for line in lines if line]
    solid = max(sum(map(len, filled)), 1)
    mean = solid / max(len(filled), 1)
    letters = sum(len(match) for match in re.findall(r"[^\W\d_]+", sample)) / solid
    parts = {
        "length": _band(len(filled), 0, 20, 1_000, 10_000),
        "lines": _band(mean, 2, 15, 50 if language not in PROSE else 400, 140 if language not in PROSE else 2_000),
        "letters": _band(letters, 0.2, 0.5, 0.95, 1.05),
        "unique": _band(len(set(filled)) / max(len(filled), 1), 0.3, 0.85, 1, 1),
    }
    if language in CODE:
        documented = _DOCSTRING.finditer(sample) if language == "python" else ()
        commented = float(sum(len(match[2]) for match in documented))
        commented += sum(1 for _ in _LINE_COMMENT.finditer(sample)) * mean
        parts["comments"] = _band(commented / solid, -0.05, 0.1, 0.45, 0.95)
        names = set(_NAME.findall(sample))
        parts["names"] = _band(sum(map(len, names)) / max(len(names), 1), 2, 6, 12, 30)
    return {name: round(value, 3) for name, value in parts.items()}


def quality(parts: dict[str, float]) -> float:
    """The weighted mean of the parts that there are, rounded to three places."""
    total = sum(WEIGHTS[name] for name in parts)
    return round(sum(WEIGHTS[name] * value for name, value in parts.items()) / total, 3) if total else 0.0
