"""The unigram model, WordPiece and BPE by scores as slowly and plainly as they can be said."""

from __future__ import annotations

import functools
from collections.abc import Mapping

__all__ = ["bpe_by_scores", "unigram", "wordpiece"]


def unigram(text: str, scores: Mapping[str, float]) -> float:
    """The best sum of scores over all ways to cut `text`; a character without a piece costs 10 more than the worst."""
    unknown = min(scores.values()) - 10

    @functools.cache
    def best(start: int) -> float:
        if start == len(text):
            return 0.0
        sums = [
            scores[text[start:end]] + best(end) for end in range(start + 1, len(text) + 1) if text[start:end] in scores
        ]
        if text[start] not in scores:
            sums.append(unknown + best(start + 1))
        return max(sums)

    return best(0)


def wordpiece(word: str, vocabulary: Mapping[str, int], *, unknown: int, prefix: str = "##") -> list[int]:
    """The longest known piece again and again; one that is missing makes the whole word unknown."""
    ids = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            found = vocabulary.get((prefix if start else "") + word[start:end])
            if found is not None:
                ids.append(found)
                start = end
                break
        else:
            return [unknown]
    return ids


def bpe_by_scores(text: str, scores: Mapping[str, float]) -> list[str]:
    """Of all neighbours that together are a piece, those of the highest score merge, the leftmost first."""
    parts = list(text)
    while True:
        joined = [parts[index] + parts[index + 1] for index in range(len(parts) - 1)]
        known = [index for index, piece in enumerate(joined) if piece in scores]
        if not known:
            return parts
        at = min(known, key=lambda index: (-scores[joined[index]], index))
        parts[at : at + 2] = [joined[at]]
