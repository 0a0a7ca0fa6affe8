"""Floor 6, perplexity: how well weights foretell a text, as llama.cpp's `llama-perplexity` counts it.

The text is cut into windows; of each the second half is judged, so that every judged token has half a window before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from highrise.core.errors import InputError

__all__ = ["perplexity"]

_CHUNK = 128


def perplexity(
    decoder: Any, ids: Sequence[int], *, window: int = 512, advance: Callable[[int], None] | None = None
) -> float:
    """exp of the mean negative log-probability of the judged tokens of `ids`; what does not fill a window is left out.

    `decoder` is a native decoder with pages for one window. `InputError` for less than one window.
    """
    count = len(ids) // window
    if count == 0:
        raise InputError(f"the text has {len(ids)} tokens; perplexity needs at least one window of {window}")
    table = np.arange(-(-window // decoder.page_size), dtype=np.int32)[None]
    total = 0.0
    for index in range(count):
        tokens = np.asarray(ids[index * window : (index + 1) * window], np.int32)
        for begin in range(0, window, _CHUNK):
            places = np.arange(begin, min(begin + _CHUNK, window), dtype=np.int32)
            judged = places[(places >= window // 2) & (places < window - 1)]
            rows = judged - np.int32(begin)
            logits = decoder.forward(tokens[places], places, np.zeros_like(places), table, rows).astype(np.float64)
            if len(rows):
                most = logits.max(axis=1)
                known = logits[np.arange(len(rows)), tokens[judged + 1]]
                total += float((np.log(np.exp(logits - most[:, None]).sum(axis=1)) + most - known).sum())
        if advance is not None:
            advance(window)
    return float(np.exp(total / (count * (window - 1 - window // 2))))
