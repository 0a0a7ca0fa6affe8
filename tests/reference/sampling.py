"""Sampling with full sorts in float64: the distribution that the fast one must draw from."""

from __future__ import annotations

import numpy as np


def distribution(
    logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, bias=None, seen=(), repetition=1.0, answer=(),
    presence=0.0, frequency=0.0,
):  # fmt: skip
    """Probability of every token, float64, zero where a filter cut it."""
    logits = np.array(logits, dtype=np.float64)
    for token, value in (bias or {}).items():
        logits[token] += value
    for token in set(seen):
        logits[token] = logits[token] / repetition if logits[token] > 0 else logits[token] * repetition
    for token in set(answer):
        logits[token] -= presence + frequency * list(answer).count(token)
    if temperature == 0:
        out = np.zeros(len(logits))
        out[np.argmax(logits)] = 1
        return out
    weights = np.exp((logits - logits.max()) / temperature)
    order = np.argsort(-logits, kind="stable")
    keep = np.ones(len(logits), bool)
    if top_k:
        keep[order[top_k:]] = False
    weights *= keep
    weights /= weights.sum()
    if top_p < 1:
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before >= top_p]] = 0
    weights[weights < min_p * weights.max()] = 0
    return weights / weights.sum()
