"""Losses, slow and obvious: one token at a time, from whole logits."""

from __future__ import annotations

import math

import torch


def token_log_probability(logits: torch.Tensor, target: int) -> float:
    """log softmax(logits)[target] of one position."""
    logits = logits.detach()
    largest = float(logits.max())
    return float(logits[target]) - largest - math.log(sum(math.exp(float(x) - largest) for x in logits))


def answer_log_probability(logits: torch.Tensor, ids: list[int], mask: list[bool]) -> float:
    """Sum over the marked tokens of a sequence: token t is predicted at t - 1. logits (T, V)."""
    return sum(token_log_probability(logits[t - 1], ids[t]) for t in range(1, len(ids)) if mask[t])


def dpo_sigmoid(
    chosen: float, rejected: float, reference_chosen: float, reference_rejected: float, beta: float
) -> float:
    """-log sigmoid(beta ((chosen - reference_chosen) - (rejected - reference_rejected)))."""
    d = (chosen - reference_chosen) - (rejected - reference_rejected)
    return math.log1p(math.exp(-beta * d))
