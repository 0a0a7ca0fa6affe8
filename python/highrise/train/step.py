"""Floor 4, step: one optimiser step over micro-batches, normalised by the tokens of the whole step.

Dividing each micro-batch's mean by their number would weigh short ones too much (huggingface/transformers 34191); here
losses are summed and divided once. Knows no data and no schedule.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from highrise.train.cross_entropy import IGNORED, summed_cross_entropy
from highrise.train.device import autocast
from highrise.train.model import Decoder
from highrise.train.optimiser import clip_gradient

__all__ = [
    "MicroBatch",
    "Sample",
    "StepResult",
    "accumulate",
    "best_fit",
    "fill_rows",
    "pack_row",
    "pack_samples",
    "train_step",
]

T = TypeVar("T")
_POOL = 24

Sample = tuple[Sequence[int], Sequence[bool]]
"""Token ids, and for each whether it is asked for."""


class MicroBatch(NamedTuple):
    """Token ids (B, T), their targets (B, T): the next token or IGNORED, and which sample each belongs to (B, T)."""

    ids: Tensor
    targets: Tensor
    segments: Tensor | None = None


class StepResult(NamedTuple):
    """Mean loss a target (nats), targets, and the gradient's norm before clipping."""

    loss: float
    num_targets: int
    norm: float


def pack_samples(samples: Sequence[Sample], length: int) -> list[MicroBatch]:
    """Samples side by side in rows of `length` tokens, one row a micro-batch; position t asks for the token at t + 1.

    Best fit, longest first. All rows have one shape (a CPU pays dearly for each new one); a sample sees only itself. A
    sample longer than a row is an error of the caller.
    """
    rows = best_fit([len(ids) for ids, _ in samples], length)
    return [pack_row([samples[index] for index in row], length) for row in rows]


def best_fit(sizes: Sequence[int], length: int) -> list[list[int]]:
    """The indices of things of `sizes` in rows of at most `length`: longest first, each where least room is left."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        size = sizes[index]
        assert size <= length, f"a sample of {size} tokens does not fit into a row of {length}"
        fitting = [row for row, left in enumerate(room) if left >= size]
        if fitting:
            best = min(fitting, key=lambda row: room[row])
            rows[best].append(index)
            room[best] -= size
        else:
            rows.append([index])
            room.append(length - size)
    return rows


def fill_rows(samples: Iterable[T], length: int, *, size: Callable[[T], int]) -> Iterator[list[T]]:
    """Samples of a stream in rows of at most `length` tokens, nearly full, each row as soon as it is.

    A row begins with the sample that has waited longest, and takes of the next few the largest that still fits until
    none does: no sample is left behind, and no more than a few are held. A sample longer than a row is an error of the
    caller.
    """
    stream = iter(samples)
    pool = list(itertools.islice(stream, _POOL))
    while pool:
        row, room = [], length
        at: int | None = 0
        while at is not None:
            sample = pool.pop(at)
            assert size(sample) <= length, f"a sample of {size(sample)} tokens does not fit into a row of {length}"
            row.append(sample)
            room -= size(sample)
            pool += itertools.islice(stream, 1)
            fitting = [index for index, waiting in enumerate(pool) if size(waiting) <= room]
            at = max(fitting, key=lambda index: size(pool[index])) if fitting else None
        yield row


def pack_row(samples: Sequence[Sample], length: int) -> MicroBatch:
    """One row of `samples` in their order, numbered as segments from 0; what is left is padding with no target."""
    ids_bt = torch.zeros(1, length, dtype=torch.int64)
    targets_bt = torch.full((1, length), IGNORED, dtype=torch.int64)
    segments_bt = torch.full((1, length), len(samples), dtype=torch.int64)
    at = 0
    for segment, (ids, mask) in enumerate(samples):
        line, asked = torch.as_tensor(ids, dtype=torch.int64), torch.as_tensor(mask, dtype=torch.bool)
        ids_bt[0, at : at + len(line)] = line
        targets_bt[0, at : at + len(line) - 1] = torch.where(asked, line, IGNORED)[1:]
        segments_bt[0, at : at + len(line)] = segment
        at += len(line)
    return MicroBatch(ids_bt, targets_bt, segments_bt)


def accumulate(
    decoder: Decoder, batches: Sequence[MicroBatch], *, device: str, precision: str, backward: bool = True
) -> tuple[float, int]:
    """Add the gradient of the step's mean loss to the parameters; the summed loss (nats) and the number of targets."""
    num_targets = sum(int((batch.targets != IGNORED).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        ids, targets = batch.ids.to(device), batch.targets.to(device)
        segments = None if batch.segments is None else batch.segments.to(device)
        with autocast(device, precision), torch.set_grad_enabled(backward):
            loss = summed_cross_entropy(decoder.hidden(ids, segments), decoder.head_weight, targets)
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
