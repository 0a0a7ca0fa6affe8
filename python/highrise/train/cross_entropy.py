"""Floor 4, cross-entropy: summed loss and log-probabilities of tokens without ever holding all logits.

Rows of hidden states go through the output matrix a chunk at a time; the gradient is made in the same pass, so nothing
of size rows x vocabulary outlives a chunk (the idea of linkedin/Liger-Kernel's fused linear cross-entropy). Only rows
that have a target are looked at.
"""

# ruff: noqa: N803, N806 (tensor names carry their axes)
from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

__all__ = ["IGNORED", "answer_log_probabilities", "summed_cross_entropy"]

IGNORED = -100
"""A target that takes no part in the loss."""
_MAX_LOGITS = 1 << 25


def summed_cross_entropy(hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor) -> Tensor:
    """The sum of -log p(target) in nats, a float32 scalar; divide it by the tokens of the whole step yourself.

    hidden_BTD: (B, T, D); head_VD: the output matrix; targets_BT: (B, T) int64, `IGNORED` where nothing is asked.
    """
    return -answer_log_probabilities(hidden_BTD, head_VD, targets_BT).sum()


def answer_log_probabilities(hidden_BTD: Tensor, head_VD: Tensor, targets_BT: Tensor) -> Tensor:
    """log p(target) in nats of every position that has a target, float32 (N,), in reading order."""
    asked = targets_BT != IGNORED
    hidden_ND, targets_N = hidden_BTD[asked], targets_BT[asked]
    if head_VD.requires_grad and len(targets_N) * len(head_VD) <= _MAX_LOGITS:  # keeping them spares a product
        log_p_NV = torch.log_softmax(F.linear(hidden_ND, head_VD).float(), dim=-1)
        return log_p_NV.gather(1, targets_N[:, None])[:, 0]
    out: Tensor = _ChunkedLogProbability.apply(hidden_ND, head_VD, targets_N)
    return out


class _ChunkedLogProbability(torch.autograd.Function):
    """log softmax(h W^T)[target] a row. The gradient of a row is (one-hot - p) W, scaled by what comes from above.

    The row gradients are stored (N, D) in the forward pass; the weight's gradient needs the scale first, so when the
    weight is trained the chunks are computed once more in the backward pass.
    """

    @staticmethod
    def forward(ctx, hidden_ND, head_VD, targets_N):  # type: ignore[no-untyped-def]
        dtype = _compute_type(hidden_ND)
        hidden, head = hidden_ND.to(dtype), head_VD.to(dtype)
        out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        with_weight = ctx.needs_input_grad[1]
        with_rows = ctx.needs_input_grad[0] and not with_weight
        gradient = torch.empty_like(hidden) if with_rows else None
        for rows in _chunks(len(hidden), len(head)):
            log_p = torch.log_softmax(F.linear(hidden[rows], head).float(), dim=-1)
            out[rows] = log_p.gather(1, targets_N[rows, None])[:, 0]
            if gradient is not None:
                gradient[rows] = _minus_p(log_p, targets_N[rows]).to(dtype) @ head
        ctx.save_for_backward(*((hidden_ND, head_VD, targets_N) if with_weight else (gradient,)))
        ctx.with_weight, ctx.dtype, ctx.hidden_type = with_weight, dtype, hidden_ND.dtype
        return out

    @staticmethod
    def backward(ctx, scale_N):  # type: ignore[no-untyped-def]
        if not ctx.with_weight:
            (gradient,) = ctx.saved_tensors
            return (gradient * scale_N[:, None]).to(ctx.hidden_type), None, None
        hidden_ND, head_VD, targets_N = ctx.saved_tensors
        hidden, head = hidden_ND.to(ctx.dtype), head_VD.to(ctx.dtype)
        for_hidden = torch.empty_like(hidden)
        for_head = torch.zeros(head_VD.shape, dtype=torch.float32, device=head.device)
        for rows in _chunks(len(hidden), len(head)):
            log_p = torch.log_softmax(F.linear(hidden[rows], head).float(), dim=-1)
            delta = (_minus_p(log_p, targets_N[rows]) * scale_N[rows, None]).to(ctx.dtype)
            for_hidden[rows] = delta @ head
            for_head += delta.T @ hidden[rows]
        return for_hidden.to(ctx.hidden_type), for_head.to(head_VD.dtype), None


def _minus_p(log_p: Tensor, targets_N: Tensor) -> Tensor:
    delta = log_p.exp_().neg_()
    delta[torch.arange(len(delta), device=delta.device), targets_N] += 1
    return delta


def _compute_type(hidden: Tensor) -> torch.dtype:
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _chunks(rows: int, vocabulary: int) -> list[slice]:
    size = max(1, _MAX_LOGITS // vocabulary)
    return [slice(begin, min(begin + size, rows)) for begin in range(0, rows, size)]
