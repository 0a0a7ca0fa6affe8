"""Floor 5, losses: direct preference optimisation, as TRL defines it.

Log-probabilities of the answer's tokens are summed; the reference is the decoder as it was before the method began. The
supervised loss is floor 4's summed cross-entropy. Knows nothing of data or steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from highrise.align.records import Pair
from highrise.train.cross_entropy import IGNORED, answer_log_probabilities
from highrise.train.device import autocast
from highrise.train.model import Decoder
from highrise.train.step import MicroBatch, best_fit, pack_row

__all__ = ["PairBatch", "dpo_loss", "pack_pairs", "summed_log_probabilities"]


class PairBatch(NamedTuple):
    """A row in which segment 2 i is the chosen and 2 i + 1 the rejected answer of pair i."""

    batch: MicroBatch
    num_pairs: int


def pack_pairs(pairs: Sequence[Pair], length: int) -> list[PairBatch]:
    """Pairs side by side in rows of `length` tokens; both answers of a pair stay in one row."""
    rows = best_fit([len(pair.chosen[0]) + len(pair.rejected[0]) for pair in pairs], length)
    return [PairBatch(pack_row([side for i in row for side in pairs[i]], length), len(row)) for row in rows]


def summed_log_probabilities(decoder: Decoder, pairs: PairBatch, *, device: str, precision: str) -> Tensor:
    """log p(answer) in nats, summed over its tokens, float32 (num_pairs, 2): chosen, rejected."""
    batch = pairs.batch
    assert batch.segments is not None
    ids, targets, segments = batch.ids.to(device), batch.targets.to(device), batch.segments.to(device)
    with autocast(device, precision):
        log_p = answer_log_probabilities(decoder.hidden(ids, segments), decoder.head_weight, targets)
    sums = torch.zeros(2 * pairs.num_pairs, dtype=torch.float32, device=device)
    return sums.index_add(0, segments[targets != IGNORED], log_p).view(-1, 2)


def dpo_loss(policy: Tensor, reference: Tensor, *, beta: float) -> Tensor:
    """-log sigmoid(beta d) a pair (Rafailov et al. 2023, eq. 7), (N,).

    policy, reference: (N, 2) log-probabilities of the chosen and the rejected answer; d is the policy's log-ratio over
    the reference's, chosen minus rejected (trl/trainer/dpo_trainer.py, loss type sigmoid without smoothing).
    """
    ratio = policy - reference
    return -F.logsigmoid(beta * (ratio[:, 0] - ratio[:, 1]))
