"""Floor 5, sft: supervised tuning as a task of the tuner: samples in rows, loss on the answers only.

Losses are summed over the rows of a step and divided once by their tokens. Knows no budget and no files.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

from highrise.align.config import SftConfig
from highrise.align.records import Sample, chat_samples, infill_samples
from highrise.core.document import Document
from highrise.core.errors import InputError
from highrise.encode.prompt import PromptFormat
from highrise.train.model import Decoder
from highrise.train.step import MicroBatch, accumulate, pack_samples

__all__ = ["SftTask"]


class SftTask:
    """Rows of fill-in-the-middle and chat samples, endless to train on, and a fixed list held out."""

    name = "sft"
    unit = "nats a token of the answers"
    default_rate = 2e-4

    def __init__(
        self,
        config: SftConfig,
        prompts: PromptFormat,
        *,
        train: Sequence[Document],
        held_out: Sequence[Document],
        sequence: int,
    ) -> None:
        self._config, self._prompts, self._train, self._sequence = config, prompts, train, sequence
        self._infill_share = config.infill_share if prompts.supports_infill else 0.0
        if not prompts.supports_chat:
            self._infill_share = 1.0 if prompts.supports_infill else 0.0
        samples = list(itertools.islice(self._mixed(held_out, config.seed + 1), config.evaluation_samples))
        self.held_out: list[MicroBatch] = pack_samples(samples, sequence)
        self.num_held_out = len(samples)

    def steps(self) -> Iterator[tuple[list[MicroBatch], int]]:
        """The rows of each step and their tokens without padding; the documents are gone through again and again."""
        waiting: list[Sample] = []
        num_tokens = 0
        for epoch in itertools.count():
            found = False
            for sample in self._mixed(self._train, self._config.seed + 100 + epoch):
                found = True
                waiting.append(sample)
                num_tokens += len(sample[0])
                if num_tokens >= self._config.batch_tokens:
                    yield pack_samples(waiting, self._sequence), num_tokens
                    waiting, num_tokens = [], 0
            if not found:
                raise InputError(
                    f"no document to train on gives a sample of at most {self._sequence} tokens; raise align.sequence"
                )

    def accumulate(
        self, decoder: Decoder, batches: Sequence[MicroBatch], *, device: str, precision: str, backward: bool = True
    ) -> tuple[float, int]:
        """Summed loss and number of targets; with `backward`, the gradient of their quotient is added."""
        return accumulate(decoder, batches, device=device, precision=precision, backward=backward)

    def _mixed(self, documents: Sequence[Document], seed: int) -> Iterator[Sample]:
        """Both kinds in their shares, until the one that is drawn runs out (chat pairs may run out before)."""
        draw = random.Random(seed)
        infill = infill_samples(documents, self._prompts, sequence=self._sequence, seed=seed)
        chat = chat_samples(documents, self._prompts, sequence=self._sequence, seed=seed)
        if self._infill_share == 0:
            yield from chat
            return
        for sample in infill:
            yield sample
            if draw.random() < (1 - self._infill_share) / self._infill_share:
                yield from itertools.islice(chat, 1)
