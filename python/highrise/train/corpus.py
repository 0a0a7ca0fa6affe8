"""Floor 4, corpus: curated documents become two packed token files, one to train on and one held out.

A share of the training pieces is turned into fill-in-the-middle samples by `encode.prompt`, so that what is trained is
what the editor sends. Knows nothing of models.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from highrise.core.document import Document
from highrise.core.errors import InputError
from highrise.core.progress import Progress
from highrise.encode import Tokenizer
from highrise.encode.packed import Batch, write_packed
from highrise.encode.prompt import PromptFormat
from highrise.train.config import TrainConfig
from highrise.train.infill import cut_infill, pieces
from highrise.train.weights_io import write_tokenizer_files

__all__ = ["TRAIN_FILE", "VALIDATION_FILE", "build_corpus", "end_of_document"]

TRAIN_FILE = "train.tokens"
VALIDATION_FILE = "validation.tokens"
_CHARACTERS_PER_TOKEN = 3


def build_corpus(
    config: TrainConfig, documents: Iterable[Document], tokenizer_from: Path, out: Path
) -> dict[str, int | float | str]:
    """Write `train.tokens`, `validation.tokens` and the tokenizer's files into `out`; returns the counts.

    `documents` come from `highrise.data.shards.read_documents`; `tokenizer_from` is a folder with tokenizer.json or a
    GGUF file. Documents of the split "validation" are encoded whole; of the others a share becomes fill-in-the-middle
    samples.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_tokenizer_files(tokenizer_from, out)
    source = tokenizer_from if tokenizer_from.is_file() else out
    tokenizer = Tokenizer.for_weights(source) if source.is_file() else Tokenizer.from_file(out / "tokenizer.json")
    prompts = PromptFormat.for_weights(source, tokenizer)
    counts = {"documents": 0, "validation_documents": 0, "infill_samples": 0, "train_tokens": 0, "validation_tokens": 0}
    held_out: list[list[int]] = []
    end = end_of_document(tokenizer)

    def train_batches() -> Iterator[Batch]:
        draw = random.Random(config.seed)
        waiting: list[list[int]] = []
        with Progress("encode corpus", unit="documents") as progress:
            for document in documents:
                progress.advance()
                counts["documents"] += 1
                if document.split == "validation":
                    counts["validation_documents"] += 1
                    held_out.append([*tokenizer.encode(document.text), end])
                    continue
                for piece in pieces(document.text, config.sequence * _CHARACTERS_PER_TOKEN // 2):
                    cut = cut_infill(piece, draw) if draw.random() < config.infill_share else None
                    if cut is not None and prompts.supports_infill:
                        counts["infill_samples"] += 1
                        waiting.append(_ended(prompts.infill_sample(*cut).ids, end))
                    else:
                        waiting.append(tokenizer.encode(piece))
                waiting[-1:] = [_ended(waiting[-1], end)] if waiting else []
                if len(waiting) >= 1000:
                    yield _batch(waiting, counts, "train_tokens")
                    waiting = []
        if waiting:
            yield _batch(waiting, counts, "train_tokens")

    write_packed(out / TRAIN_FILE, train_batches(), tokenizer.vocab_size)
    write_packed(out / VALIDATION_FILE, iter([_batch(held_out, counts, "validation_tokens")]), tokenizer.vocab_size)
    if counts["train_tokens"] == 0:
        raise InputError("there are no documents to train on: the data folder holds none of the split train")
    return {**counts, "vocabulary": tokenizer.vocab_size}


def end_of_document(tokenizer: Tokenizer) -> int:
    """The id that stands between documents: <|endoftext|> where the vocabulary has it, else the first end token."""
    for name in ("<|endoftext|>", "</s>"):
        if name in tokenizer.special_tokens:
            return tokenizer.special_tokens[name]
    if not tokenizer.eos_ids:
        raise InputError("the tokenizer has no end-of-text token; train it with special tokens")
    return tokenizer.eos_ids[0]


def _ended(ids: list[int], end: int) -> list[int]:
    return ids if ids and ids[-1] == end else [*ids, end]


def _batch(samples: Sequence[Sequence[int]], counts: dict[str, int], name: str) -> Batch:
    offsets = np.zeros(len(samples) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in samples], out=offsets[1:])
    counts[name] += int(offsets[-1])
    return np.fromiter((token for ids in samples for token in ids), dtype=np.uint32, count=int(offsets[-1])), offsets
