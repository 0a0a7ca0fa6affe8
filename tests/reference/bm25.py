"""BM25 as the formula stands on paper, one loop for each sum: slow and obvious."""

from __future__ import annotations

import math


def bm25(documents: list[list[str]], query: list[str], *, k1: float, b: float) -> list[float]:
    """The score of each document for the query; a term that stands twice in the query counts twice."""
    mean = max(sum(len(document) for document in documents) / len(documents), 1.0) if documents else 1.0
    scores = []
    for document in documents:
        score = 0.0
        for term in query:
            frequency = document.count(term)
            containing = sum(term in other for other in documents)
            idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            score += idf * frequency * (k1 + 1) / (frequency + k1 * (1 - b + b * len(document) / mean))
        scores.append(score)
    return scores
