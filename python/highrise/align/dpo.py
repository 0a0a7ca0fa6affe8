"""Floor 5, dpo: preference tuning as a task of the tuner: pairs in rows, and the decoder as it was as the reference.

Knows no budget and no files but the one with pairs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from highrise.align.config import DpoConfig
from highrise.align.lora import as_it_was
from highrise.align.losses import PairBatch, dpo_loss, pack_pairs, summed_log_probabilities
from highrise.align.records import Pair, pairs, read_pairs
from highrise.core.document import Document
from highrise.core.errors import ConfigError
from highrise.encode.prompt import PromptFormat
from highrise.train.model import Decoder

__all__ = ["DpoTask"]


class DpoTask:
    """Rows of pairs, endless to train on, and a fixed list held out."""

    name = "dpo"
    default_rate = 5e-5
    judged = frozenset({"pairs"})

    def __init__(
        self,
        config: DpoConfig,
        prompts: PromptFormat,
        *,
        train: Sequence[Document],
        held_out: Sequence[Document],
        sequence: int,
        reference: dict[str, Tensor] | None,
    ) -> None:
        """`reference`: the adapter as it stands now, None when there is none yet."""
        self._config, self._reference, self._length = config, reference, 2 * sequence
        self._documents, self._prompts, self._sequence = train, prompts, sequence
        self._given: list[Pair] = []
        if config.feedback == "auto":
            if not prompts.supports_infill:
                raise ConfigError(
                    'DPO has no pairs: feedback = "auto" needs a vocabulary with fill-in-the-middle tokens; name a file'
                )
            drawn = pairs(held_out, prompts, sequence=sequence, seed=config.seed + 1)
            kept = list(itertools.islice(drawn, config.evaluation_samples))
        else:
            self._given = read_pairs(Path(config.feedback), prompts, sequence=sequence)
            if len(self._given) < 4:
                raise ConfigError(f"DPO has too few pairs: {config.feedback} holds {len(self._given)}; give 4 or more")
            random.Random(config.seed).shuffle(self._given)
            share = max(1, min(config.evaluation_samples, len(self._given) // 8))
            kept, self._given = self._given[:share], self._given[share:]
        self.held_out: list[PairBatch] = pack_pairs(kept, self._length)

    def steps(self) -> Iterator[tuple[list[PairBatch], int]]:
        """The rows of each step and their tokens without padding."""
        waiting: list[Pair] = []
        num_tokens = 0
        for epoch in itertools.count():
            found = False
            for pair in self._epoch(self._config.seed + 100 + epoch):
                found = True
                waiting.append(pair)
                num_tokens += len(pair.chosen[0]) + len(pair.rejected[0])
                if num_tokens >= self._config.batch_tokens:
                    yield pack_pairs(waiting, self._length), num_tokens
                    waiting, num_tokens = [], 0
            if not found:
                raise ConfigError(
                    f"DPO has no pairs: no document gives one of at most {self._sequence} tokens; raise align.sequence"
                )

    def accumulate(
        self, decoder: Decoder, batches: Sequence[PairBatch], *, device: str, precision: str, backward: bool = True
    ) -> tuple[float, int]:
        """Summed loss and number of pairs; with `backward`, the gradient of their quotient is added."""
        num_pairs = sum(batch.num_pairs for batch in batches)
        total = 0.0
        for batch in batches:
            with torch.no_grad(), as_it_was(decoder, self._reference):
                reference = summed_log_probabilities(decoder, batch, device=device, precision=precision)
            with torch.set_grad_enabled(backward):
                policy = summed_log_probabilities(decoder, batch, device=device, precision=precision)
                loss = dpo_loss(policy, reference, beta=self._config.beta).sum()
            if backward:
                (loss / num_pairs).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total, num_pairs

    def look(self, decoder: Decoder, row: PairBatch, *, device: str, precision: str) -> list[tuple[str, float, int]]:
        """Summed loss and number of pairs of a held-out row, all of one kind."""
        return [("pairs", *self.accumulate(decoder, [row], device=device, precision=precision, backward=False))]

    def _epoch(self, seed: int) -> Iterator[Pair]:
        if self._config.feedback == "auto":
            yield from pairs(self._documents, self._prompts, sequence=self._sequence, seed=seed)
            return
        order = list(self._given)
        random.Random(seed).shuffle(order)
        yield from order
