"""Floor 6, forward: what one step gives the decoder, as flat arrays. Knows neither sampling nor the queue.

`Decoder` is the contract: ours is in C++, `tests/reference/paged_decoder.py` is the slow one.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import Protocol

import numpy as np
import numpy.typing as npt

from highrise.serve.cache import Cache
from highrise.serve.loaded_adapters import AdapterHolder, LoadedAdapter
from highrise.serve.scheduler import Work

__all__ = ["Batch", "Decoder", "adapter_numbers", "last_row", "wanted_rows"]

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


class Decoder(AdapterHolder, Protocol):
    """One forward step over a paged cache. T tokens of S sequences, each with a row of P pages and maybe an adapter."""

    def forward(
        self,
        tokens_T: Ints,  # noqa: N803
        positions_T: Ints,  # noqa: N803
        sequence_T: Ints,  # noqa: N803
        pages_SP: Ints,  # noqa: N803
        logit_rows: Ints,
        adapters_S: Ints | None = None,  # noqa: N803
    ) -> Floats:
        """float32 logits (len(logit_rows), vocabulary); keys and values of all T tokens are written first.

        `adapters_S` has the number of each sequence's adapter, -1 for none.
        """
        ...

    def hidden(
        self,
        tokens_T: Ints,  # noqa: N803
        positions_T: Ints,  # noqa: N803
        sequence_T: Ints,  # noqa: N803
        pages_SP: Ints,  # noqa: N803
        adapters_S: Ints | None = None,  # noqa: N803
    ) -> Floats:
        """float32 hidden states after the last norm (T, hidden)."""
        ...

    def copy_pages(self, src: Ints, dst: Ints) -> None:
        """Copy whole pages in every layer, one after another."""
        ...

    def move_tokens(self, src: Ints, dst: Ints, src_start: int, dst_start: int, count: int) -> None:
        """Copy tokens from one row of pages to places of another, keys turned on to their new positions."""
        ...


def wanted_rows(item: Work) -> range:
    """Places in the chunk whose logits are needed."""
    if item.sequence.prompt_logprobs is not None and item.start < item.sequence.num_prompt - 1:
        return range(item.count)
    return range(item.count - 1, item.count + len(item.drafts)) if item.finishes else range(0)


def last_row(item: Work) -> int:
    """The row, among the wanted ones, of the last token that is no guess."""
    return len(wanted_rows(item)) - 1 - len(item.drafts)


def adapter_numbers(adapters: Items[LoadedAdapter | None]) -> Ints | None:
    """The decoder's numbers of adapters, -1 for none; None when there are none at all."""
    if all(adapter is None for adapter in adapters):
        return None
    return np.array([_number(adapter) for adapter in adapters], dtype=np.int32)


def _number(adapter: LoadedAdapter | None) -> int:
    return -1 if adapter is None else adapter.number


class Batch:
    """The tokens of one step, rows of one adapter side by side; `table_SP` is a buffer for the rows of pages."""

    def __init__(self, work: Items[Work], cache: Cache, table_SP: Ints) -> None:  # noqa: N803
        work = sorted(work, key=lambda item: _number(item.sequence.adapter))
        sequences = [item.sequence for item in work]
        width = cache.write_tables(sequences, table_SP)
        self.pages_SP = np.ascontiguousarray(table_SP[: len(work), :width])
        self.adapters_S = adapter_numbers([sequence.adapter for sequence in sequences])
        places = [np.array(item.places, dtype=np.int32) for item in work]
        total = sum(map(len, places))
        self.tokens_T, self.positions_T, self.sequence_T = (np.empty(total, dtype=np.int32) for _ in range(3))
        self.first_rows: dict[str, int] = {}
        """The first row of logits of each request that wants any."""
        wanted: list[int] = []
        place = 0
        for index, item in enumerate(work):
            end = place + len(places[index])
            self.tokens_T[place:end] = item.tokens
            self.positions_T[place:end] = places[index]
            self.sequence_T[place:end] = index
            offsets = wanted_rows(item)
            if offsets:
                self.first_rows[item.sequence.request.id] = len(wanted)
                wanted.extend(range(end - len(offsets), end))
            place = end
        self.logit_rows = np.array(wanted, dtype=np.int32)

    def run(self, decoder: Decoder) -> Floats:
        """float32 logits of the wanted rows (rows, vocabulary)."""
        return decoder.forward(
            self.tokens_T, self.positions_T, self.sequence_T, self.pages_SP, self.logit_rows, self.adapters_S
        )
