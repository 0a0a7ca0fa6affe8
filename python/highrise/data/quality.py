"""Floor 2, quality: a score in [0, 1] with its parts, from surface signals that need no model.

Each part is in [0, 1] and the score is their weighted mean; `docs/floors/2-data.md` has the table. The signals are
those of StarCoder and CodeParrot (comment ratio, line lengths, alphanumeric share), made continuous. Knows nothing of
filters.
"""

from __future__ import annotations

import re

from highrise.data.filters import count_letters
from highrise.data.languages import CODE, PROSE

__all__ = ["WEIGHTS", "comment_share", "quality", "quality_parts"]

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

_LINE_COMMENT = re.compile(r"^\s*(?:#(?!!)|//|/\*|\*[ /]|--\s|;|%)", re.M)
_DOCSTRING = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\')(.*?)\1', re.M | re.S)
_NAME = re.compile(r"\b[A-Za-z_][A-Za-z_0-9]{0,63}\b")
_PUBLIC = re.compile(r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+[A-Za-z]", re.M)
_DOCUMENTED = re.compile(r":[ \t]*(?:#[^\n]*)?\n[ \t]+[rRuU]?(?:\"\"\"|''')")
_DEEP = re.compile(r"^(?: {24}|\t{6})[ \t]*\S", re.M)
_SAMPLE = 20_000


def _band(value: float, low: float, good_low: float, good_high: float, high: float) -> float:
    """1 inside [good_low, good_high], falling linearly to 0 at low and high."""
    if good_low <= value <= good_high:
        return 1.0
    if value < good_low:
        return max(0.0, (value - low) / (good_low - low)) if good_low > low else 0.0
    return max(0.0, (high - value) / (high - good_high)) if high > good_high else 0.0


def comment_share(language: str, text: str) -> float:
    """Share of the characters of a code file that stand in comments and docstrings, from the first 20,000."""
    sample = text[:_SAMPLE]
    lines = sample.split("\n")
    solid = max(sum(len(line.strip()) for line in lines), 1)
    documented = _DOCSTRING.finditer(sample) if language == "python" else ()
    commented = sum(len(line.strip()) for match in documented for line in match[2].split("\n"))
    commented += sum(len(line.strip()) for line in lines if _LINE_COMMENT.match(line))
    return min(1.0, commented / solid)


def quality_parts(
    language: str, text: str, *, error_share: float = 0.0, commented: float | None = None
) -> dict[str, float]:
    """The parts of the score. Only the first 20,000 characters are looked at; `error_share` is the parser's,
    `commented` what `comment_share` said, if it was asked already.
    """
    sample = text[:_SAMPLE]
    lines = [line.strip() for line in sample.split("\n")]
    filled = [line for line in lines if line]
    solid = max(sum(map(len, filled)), 1)
    mean = solid / max(len(filled), 1)
    letters = count_letters(sample) / solid
    parts = {
        "length": _band(len(filled), 0, 20, 1_000, 10_000),
        "lines": _band(mean, 2, 15, 50 if language not in PROSE else 400, 140 if language not in PROSE else 2_000),
        "letters": _band(letters, 0.2, 0.5, 0.95, 1.05),
        "unique": _band(len(set(filled)) / max(len(filled), 1), 0.3, 0.85, 1, 1),
    }
    if language in CODE:
        share = comment_share(language, sample) if commented is None else commented
        parts["comments"] = _band(share, -0.05, 0.1, 0.45, 0.95)
        names = set(_NAME.findall(sample))
        parts["names"] = _band(sum(map(len, names)) / max(len(names), 1), 2, 6, 12, 30)
        parts["nesting"] = _band(len(_DEEP.findall(sample)) / max(len(filled), 1), -1, 0, 0.15, 0.8)
        parts["syntax"] = _band(error_share, -1, 0, 0, 0.2)
    if language == "python" and (public := len(_PUBLIC.findall(sample))):
        parts["docstrings"] = _band(len(_DOCUMENTED.findall(sample)) / public, -0.25, 0.75, 1_000, 1_001)
    return {name: round(value, 3) for name, value in parts.items()}


def quality(parts: dict[str, float]) -> float:
    """The weighted mean of the parts that there are, rounded to three places."""
    total = sum(WEIGHTS[name] for name in parts)
    return round(sum(WEIGHTS[name] * value for name, value in parts.items()) / total, 3) if total else 0.0
