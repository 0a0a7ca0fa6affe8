"""Floor 5, sft: supervised tuning as a task of the tuner: samples in rows, a loss on the answers of records.

Records are fill-in-the-middle samples and chat pairs; beside them plain windows of the same files, where every token is
asked for. Losses are summed over the rows of a step and divided once by their tokens. Knows no budget and no files.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from highrise.align.choice import is_prose
from highrise.align.config import SftConfig
from highrise.align.records import Sample, chat_samples, infill_samples, text_samples
from highrise.core.document import Document
from highrise.core.errors import InputError
from highrise.encode.prompt import PromptFormat
from highrise.train.cross_entropy import IGNORED, answer_log_probabilities
from highrise.train.device import autocast
from highrise.train.model import Decoder
from highrise.train.step import MicroBatch, accumulate, fill_rows, pack_row

__all__ = ["HeldOutRow", "SftTask"]

_PATTERN = ("infill code", "infill prose", "infill code", "chat", "code", "infill code", "prose", "infill code")


class HeldOutRow(NamedTuple):
    """A row of held-out samples and the kind of each, by segment."""

    batch: MicroBatch
    kinds: tuple[str, ...]


class SftTask:
    """Rows of samples, endless to train on, and a fixed list held out."""

    name = "sft"
    default_rate = 2e-4

    def __init__(
        self,
        config: SftConfig,
        prompts: PromptFormat,
        *,
        train: Sequence[Document],
        held_out: Sequence[Document],
        sequence: int,
        row: int | None = None,
    ) -> None:
        """`sequence`: the longest sample in tokens; `row`: tokens that go through the model at once (None: as many)."""
        self._config, self._prompts, self._train, self._sequence = config, prompts, train, sequence
        self._row = max(sequence, row or sequence)
        self._infill_share = config.infill_share if prompts.supports_infill else 0.0
        if not prompts.supports_chat:
            self._infill_share = 1.0 if prompts.supports_infill else 0.0
        samples = self._judges(held_out)
        self.judged = frozenset({"infill code", "infill prose", "chat"} & {kind for kind, _ in samples}) or frozenset(
            kind for kind, _ in samples
        )
        rows = fill_rows(iter(samples), self._row, size=lambda sample: len(sample[1][0]))
        self.held_out = [
            HeldOutRow(pack_row([s for _, s in row], self._row), tuple(kind for kind, _ in row)) for row in rows
        ]

    def steps(self) -> Iterator[tuple[list[MicroBatch], int]]:
        """The rows of each step and their tokens without padding; the documents are gone through again and again."""
        rows = fill_rows(self._endless(), self._row, size=lambda sample: len(sample[0]))
        waiting: list[MicroBatch] = []
        num_tokens = 0
        for row in rows:
            waiting.append(pack_row(row, self._row))
            num_tokens += sum(len(ids) for ids, _ in row)
            if len(waiting) * self._row >= self._config.batch_tokens:
                yield waiting, num_tokens
                waiting, num_tokens = [], 0

    def accumulate(
        self, decoder: Decoder, batches: Sequence[MicroBatch], *, device: str, precision: str, backward: bool = True
    ) -> tuple[float, int]:
        """Summed loss and number of targets; with `backward`, the gradient of their quotient is added."""
        return accumulate(decoder, batches, device=device, precision=precision, backward=backward)

    @torch.no_grad()
    def look(self, decoder: Decoder, row: HeldOutRow, *, device: str, precision: str) -> list[tuple[str, float, int]]:
        """Kind, summed loss (nats) and number of targets of each sample in a held-out row."""
        ids, targets, segments = (part.to(device) for part in row.batch if part is not None)
        with autocast(device, precision):
            log_p = answer_log_probabilities(decoder.hidden(ids, segments), decoder.head_weight, targets)
        owner = segments[targets != IGNORED]
        sums = torch.zeros(len(row.kinds), device=device).index_add(0, owner, log_p.float())
        counts = torch.bincount(owner, minlength=len(row.kinds))
        return [(kind, -float(total), int(count)) for kind, total, count in zip(row.kinds, sums, counts, strict=True)]

    def _judges(self, documents: Sequence[Document]) -> list[tuple[str, Sample]]:
        """Held-out samples of every kind that the documents give, in turn, so that the first rows hold all of them."""
        code = [document for document in documents if not is_prose(document)]
        prose = [document for document in documents if is_prose(document)]
        seed, sequence = self._config.seed + 1, self._sequence
        streams: dict[str, Iterator[Sample]] = {
            "chat": chat_samples(documents, self._prompts, sequence=sequence, seed=seed),
            "code": text_samples(code, self._prompts, sequence=sequence, seed=seed),
            "prose": text_samples(prose, self._prompts, sequence=sequence, seed=seed),
        }
        if self._prompts.supports_infill:
            streams["infill code"] = infill_samples(code, self._prompts, sequence=sequence, seed=seed)
            streams["infill prose"] = infill_samples(prose, self._prompts, sequence=sequence, seed=seed)
        samples: list[tuple[str, Sample]] = []
        empty = set(_PATTERN) - set(streams)
        for kind in itertools.cycle(_PATTERN):
            if len(samples) >= self._config.evaluation_samples or empty >= set(_PATTERN):
                return samples
            sample = None if kind in empty else next(streams[kind], None)
            if sample is None:
                empty.add(kind)
            else:
                samples.append((kind, sample))
        return samples

    def _endless(self) -> Iterator[Sample]:
        for epoch in itertools.count():
            found = False
            for sample in self._mixed(self._train, self._config.seed + 100 + epoch):
                found = True
                yield sample
            if not found:
                raise InputError(
                    f"no document to train on gives a sample of at most {self._sequence} tokens; raise align.sequence"
                )

    def _mixed(self, documents: Sequence[Document], seed: int) -> Iterator[Sample]:
        """Every kind in its share, until the one that leads runs out (chat pairs may run out before)."""
        draw = random.Random(seed)
        infill = infill_samples(documents, self._prompts, sequence=self._sequence, seed=seed)
        chat = chat_samples(documents, self._prompts, sequence=self._sequence, seed=seed)
        text = text_samples(documents, self._prompts, sequence=self._sequence, seed=seed)
        lead = infill if self._infill_share else chat
        for sample in lead:
            yield sample
            if self._infill_share and draw.random() < (1 - self._infill_share) / self._infill_share:
                yield from itertools.islice(chat, 1)
            if self._config.text_share and draw.random() < self._config.text_share / (1 - self._config.text_share):
                yield from itertools.islice(text, 1)
        if self._config.text_share and not self._infill_share:
            yield from text
