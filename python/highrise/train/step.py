"""Floor 4, step: one optimiser step over micro-batches, normalised by the tokens of the whole step.

Dividing each micro-batch's mean by their number would weigh short ones too much (huggingface/transformers 34191); here
losses are summed and divided once. Knows no data and no schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from highrise.train.cross_entropy import IGNORED, summed_cross_entropy
from highrise.train.device import autocast
from highrise.train.model import Decoder
from highrise.train.optimiser import clip_gradient

__all__ = ["MicroBatch", "StepResult", "accumulate", "pad_samples", "train_step"]


class MicroBatch(NamedTuple):
    """Token ids (B, T) and their targets (B, T): the next token, or IGNORED."""

    ids: Tensor
    targets: Tensor


class StepResult(NamedTuple):
    """Mean loss a target (nats), targets, and the gradient's norm before clipping."""

    loss: float
    num_targets: int
    norm: float


def pad_samples(samples: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> MicroBatch:
    """Samples of (ids, loss mask) side by side, padded at the end; position t asks for the token at t + 1.

    Padding is id 0 with no target; attention is causal, so nothing before it changes.
    """
    longest = max(len(ids) for ids, _ in samples)
    ids_bt = torch.zeros(len(samples), longest, dtype=torch.int64)
    targets_bt = torch.full((len(samples), longest), IGNORED, dtype=torch.int64)
    for row, (ids, mask) in enumerate(samples):
        line = torch.as_tensor(ids, dtype=torch.int64)
        ids_bt[row, : len(ids)] = line
        asked = torch.as_tensor(mask, dtype=torch.bool)[1:]
        targets_bt[row, : len(ids) - 1] = torch.where(asked, line[1:], IGNORED)
    return MicroBatch(ids_bt, targets_bt)


def accumulate(
    decoder: Decoder, batches: Sequence[MicroBatch], *, device: str, precision: str, backward: bool = True
) -> tuple[float, int]:
    """Add the gradient of the step's mean loss to the parameters; the summed loss (nats) and the number of targets."""
    num_targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        ids, targets = batch.ids.to(device), batch.targets.to(device)
        with autocast(device, precision), torch.set_grad_enabled(backward):
            loss = summed_cross_entropy(decoder.hidden(ids), decoder.head_weight, targets)
        if backward:
            (loss / max(1, num_targets)).backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total, num_targets


def train_step(
    decoder: Decoder,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    *,
    rate: float,
    clip: float,
    device: str,
    precision: str,
    loss: Callable[..., tuple[float, int]] = accumulate,
) -> StepResult:
    """One step: accumulate, clip, update. `loss` may replace the cross-entropy (preferences do)."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    total, num_targets = loss(decoder, batches, device=device, precision=precision)
    norm = clip_gradient(decoder.parameters(), clip)
    optimiser.step()
    return StepResult(total / max(1, num_targets), num_targets, norm)
