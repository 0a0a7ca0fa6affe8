"""Floor 4, evaluate: bits per byte on held-out documents, a measure that does not depend on the vocabulary.

Each document is cut into windows; the first token of a window is predicted from the end-of-document token alone, so
long documents cost a little more than a sliding window would say. Knows nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
import torch

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from highrise.train.corpus import end_of_document
from highrise.train.device import autocast
from highrise.train.model import Decoder
from highrise.train.step import Sample, accumulate, pack_samples

__all__ = ["Evaluation", "bits_per_byte", "mean_loss"]


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured; the loss is in nats a token."""

    bits_per_byte: float
    loss: float
    num_tokens: int
    num_bytes: int
    num_documents: int


def bits_per_byte(
    decoder: Decoder,
    tokenizer: Tokenizer,
    texts: Iterable[str],
    *,
    sequence: int = 512,
    device: str = "cpu",
    precision: str = "float32",
) -> Evaluation:
    """Bits the model spends on a byte (UTF-8) of `texts`, special tokens read as plain text."""
    sequence = min(sequence, decoder.shape.max_position_embeddings)
    start = end_of_document(tokenizer)
    windows: list[Sample] = []
    num_bytes = num_documents = 0
    for text in texts:
        ids = tokenizer.encode(text)
        num_bytes += len(text.encode())
        num_documents += 1
        for begin in range(0, len(ids), sequence - 1):
            part = ids[begin : begin + sequence - 1]
            windows.append(([start, *part], [False] + [True] * len(part)))
    if not windows:
        raise InputError("there is no text to evaluate on: every document is empty, or there are none")
    total, num_tokens = mean_loss(decoder, windows, length=sequence, device=device, precision=precision)
    return Evaluation(
        bits_per_byte=total * num_tokens / math.log(2) / num_bytes,
        loss=total,
        num_tokens=num_tokens,
        num_bytes=num_bytes,
        num_documents=num_documents,
    )


def mean_loss(
    decoder: Decoder,
    samples: Sequence[Sample],
    *,
    length: int,
    device: str = "cpu",
    precision: str = "float32",
) -> tuple[float, int]:
    """Mean loss (nats) over all tokens asked for, and how many those are; samples go in rows of `length` tokens."""
    total, num_targets = 0.0, 0
    with torch.no_grad(), autocast(device, precision):
        for batch in pack_samples(samples, length):
            loss, targets = accumulate(decoder, [batch], device=device, precision=precision, backward=False)
            total, num_targets = total + loss, num_targets + targets
    return total / max(1, num_targets), num_targets
