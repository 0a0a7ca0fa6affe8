"""Floor 3, train: a new vocabulary from texts. The merges are those of Hugging Face's trainer under the same rule.

Memory grows with the number of different words, not with the text; a limit sends counts to files, and only when the
different words alone are too many are the rarest left out, which is said. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.core.native import rust
from highrise.core.progress import Progress, human_bytes, say
from highrise.encode.config import LEAST_MEMORY, TokenizerConfig
from highrise.encode.formats import Special, VocabularyFile
from highrise.encode.prompt_template import CHATML
from highrise.encode.text_files import flat_parts
from highrise.encode.texts import FlatTexts, Texts, as_batch, without_surrogates
from highrise.encode.tokenizer import Tokenizer

__all__ = ["build_tokenizer", "train_tokenizer", "write_tokenizer_folder"]

_BATCH_CHARACTERS = 4 << 20
_COUNT_BYTES = 200
"""Of memory a piece takes while it is counted and then sorted, on average; see docs/log/encode.md for both."""
_TRAIN_BYTES = 260
"""While merges are learned."""
_Text = TypeVar("_Text", bound=str | bytes)


def train_tokenizer(
    texts: Texts | Iterable[str],
    *,
    vocabulary: int,
    pattern: str,
    special: Sequence[str] = (),
    min_count: int = 2,
    threads: int = 1,
    files: Sequence[str | Path] = (),
    memory: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Learn a vocabulary; it is smaller than asked for when the texts hold no more pairs that occur `min_count` times.

    Texts are an iterable of str or bytes, which need not fit the memory, or whatever `encode_batch` takes. Special
    tokens have the first ids, in the order given; text in the corpus that spells one is plain text.

    `files` are UTF-8 files of any size, read after `texts`. With `memory`, in bytes, counts beyond it go to files in a
    new folder in `folder` (the system's for temporary files by default), without a change to what is learned, until
    the different words of the corpus do not fit: then the rarest are left out, and how many is printed.
    """
    with contextlib.ExitStack() as stack:
        options: dict[str, object] = {}
        if memory is not None:
            if memory < LEAST_MEMORY:
                raise InputError(f"{memory} bytes are too few to train with; give at least {human_bytes(LEAST_MEMORY)}")
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="highrise-counts-", dir=folder))
            options = {"folder": place, "most": memory // _COUNT_BYTES, "room": memory // _TRAIN_BYTES}
        trainer = rust.BytePairTrainer(pattern, **options)  # type: ignore[arg-type]
        _count(trainer, as_batch(texts), files, threads=threads, progress=progress)
        if not trainer.size()[1]:
            raise InputError("there is no text to train a vocabulary on")
        pieces, occurrences, least = trainer.finish()
        if pieces:
            say(
                f"{pieces:,} rare words, at {occurrences:,} places in the corpus, did not fit into memory and were "
                f"left out; the others occur {least} times or more"
            )
        tokens, merges = trainer.train(vocabulary, len(special), min_count)
    specials = [Special(text, index) for index, text in enumerate(special)]
    return Tokenizer(VocabularyFile(scheme=pattern, specials=specials, tokens=tokens, merges=merges))


def _count(
    trainer: rust.BytePairTrainer,
    texts: FlatTexts | Iterable[str | bytes],
    files: Sequence[str | Path],
    *,
    threads: int,
    progress: Progress | None,
) -> None:
    if isinstance(texts, tuple):
        for data, offsets in flat_batches(texts, _BATCH_CHARACTERS * threads):
            trainer.add_flat(data, offsets, threads)
            _advance(progress, trainer)
    else:
        size = _BATCH_CHARACTERS * threads
        for batch in [texts] if isinstance(texts, list) else batches(texts, size):
            start = 0
            while start < len(batch):
                try:
                    start = trainer.add_some(batch, start, size, threads)
                except UnicodeEncodeError:
                    batch = [without_surrogates(text) if isinstance(text, str) else text for text in batch]
                    continue
                _advance(progress, trainer)
    for file in files:
        for data, offsets in flat_parts(Path(file)):
            try:
                trainer.add_flat(data, offsets, threads)
            except InputError as error:
                raise InputError(f"{file} is no UTF-8 text ({error})") from error
            _advance(progress, trainer)


def _advance(progress: Progress | None, trainer: rust.BytePairTrainer) -> None:
    if progress is not None:
        progress.advance(trainer.size()[1] - progress.done)


def batches(texts: Iterable[_Text], size: int) -> Iterator[list[_Text]]:
    """Lists of texts of about so many characters each."""
    rest = iter(texts)
    batch: list[_Text] = []
    taken, number = 0, 1
    # Short texts are taken by the hundred: one by one would take longer than counting what is in them.
    while some := list(itertools.islice(rest, number)):
        batch += some
        taken += sum(map(len, some))
        if taken >= size:
            yield batch
            batch, taken, number = [], 0, 1
        else:
            number = max(1, min(2 * number, (size - taken) * len(batch) // (2 * taken + 1)))
    if batch:
        yield batch


def flat_batches(texts: FlatTexts, size: int) -> Iterator[FlatTexts]:
    """The same of texts in one array: parts of about so many bytes, the array itself with parts of the offsets."""
    data, offsets = texts
    first, last = 0, len(offsets) - 1
    while first < last:
        end = min(max(int(np.searchsorted(offsets, offsets[first] + size)), first + 1), last)
        yield data, offsets[first : end + 1]
        first = end


def write_tokenizer_folder(tokenizer: Tokenizer, folder: Path, *, chat_template: str | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json as Hugging Face's transformers reads them."""
    names = {index: text for text, index in tokenizer.special_tokens.items()}
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if tokenizer.eos_ids:
        config["eos_token"] = names[tokenizer.eos_ids[0]]
    if tokenizer.bos_id is not None:
        config["bos_token"] = names[tokenizer.bos_id]
    if "<|endoftext|>" in tokenizer.special_tokens:
        config["pad_token"] = "<|endoftext|>"
    if chat_template is not None:
        config["chat_template"] = chat_template
    tokenizer.save(folder / "tokenizer.json")
    with atomic_write(folder / "tokenizer_config.json") as file:
        file.write(msgspec.json.format(msgspec.json.encode(config), indent=2))


def build_tokenizer(config: TokenizerConfig, data_folder: Path, out: Path) -> dict[str, int | float | str]:
    """The stage: train on the documents of a data folder (split train) and write the tokenizer's files into `out`."""
    from highrise.data.shards import read_documents

    texts = (document.text for document in read_documents(data_folder, split="train"))
    with Progress("train tokenizer", unit="B") as progress:
        tokenizer = train_tokenizer(
            texts,
            vocabulary=config.vocabulary,
            pattern=config.pattern,
            special=config.special,
            min_count=config.min_count,
            threads=config.threads,
            memory=config.memory_bytes(),
            folder=out,
            progress=progress,
        )
        read = int(progress.done)
    chat = CHATML if {"<|im_start|>", "<|im_end|>"} <= set(config.special) else None
    write_tokenizer_folder(tokenizer, out, chat_template=chat)
    return {"vocabulary": tokenizer.vocab_size, "bytes": read}
