"""Floor 3, middle: documents turned into fill-in-the-middle samples, cut at characters before they are encoded.

Bavarian et al. 2022 ("Efficient training of language models to fill in the middle"): with a rate, a document is cut at
two random places; prefix, suffix, middle (PSM) as the editor asks it, or suffix, prefix, middle (SPM). Knows no files.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from highrise.core.errors import InputError
from highrise.encode.prompt import PromptFormat
from highrise.encode.tokenizer import Tokenizer

__all__ = ["middle_samples"]


def middle_samples(
    tokenizer: Tokenizer, texts: Iterable[str], *, rate: float = 0.5, suffix_first: float = 0.5, seed: int = 0
) -> Iterator[list[int]]:
    """The ids of each text: as it is, or with `rate` cut in three, of these with `suffix_first` in the order SPM.

    The document's end token is part of a sample that was cut, as it is when a model has filled a hole.
    """
    if not 0 <= rate <= 1 or not 0 <= suffix_first <= 1:
        raise InputError(f"rate = {rate} and suffix_first = {suffix_first} are shares: give numbers from 0 to 1")
    prompts = PromptFormat(tokenizer, None)
    if rate and not prompts.supports_infill:
        raise InputError("this vocabulary has no fill-in-the-middle tokens (<|fim_prefix|> and so on); use rate = 0")
    chance = random.Random(seed)
    for text in texts:
        if len(text) < 3 or chance.random() >= rate:
            yield tokenizer.encode(text)
            continue
        first, second = sorted(chance.sample(range(len(text) + 1), 2))
        prefix, middle, suffix = text[:first], text[first:second], text[second:]
        if chance.random() < suffix_first:
            # The prefix stands behind the token of the middle, so that it and the middle are one text.
            ids = prompts.infill("", suffix).ids
            end = prompts.infill_sample("", "", suffix).ids[len(ids) :]
            yield [*ids, *tokenizer.encode(prefix + middle), *end]
        else:
            yield prompts.infill_sample(prefix, middle, suffix).ids
