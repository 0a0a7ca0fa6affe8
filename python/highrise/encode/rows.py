"""Floor 3, rows: documents to rows of one length for training, each document whole in one row where it fits.

Best-fit decreasing (Ding et al. 2024, "Fewer truncations improve language modeling"): a document goes where the least
room is left over; one that is longer than a row is cut into full rows and a rest. Knows nothing of text.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError

__all__ = ["Part", "best_fit", "fill_rows"]

Part = tuple[int, int, int]
"""A document and which of its tokens: (index, start, end)."""


def best_fit(lengths: Sequence[int], row: int) -> list[list[Part]]:
    """Rows of at most `row` tokens, each a list of parts of documents; every token is in exactly one."""
    if row < 1:
        raise InputError(f"rows of {row} tokens cannot hold anything; give at least 1")
    rows: list[list[Part]] = []
    rests: list[Part] = []
    for index, length in enumerate(lengths):
        whole = length // row * row
        rows.extend([(index, start, start + row)] for start in range(0, whole, row))
        if length > whole:
            rests.append((index, whole, length))
    rests.sort(key=lambda part: (part[1] - part[2], part[0]))
    # Rows with room, as (room, row), sorted: the first that is large enough is the tightest.
    rooms: list[tuple[int, int]] = []
    for part in rests:
        size = part[2] - part[1]
        at = bisect.bisect_left(rooms, (size, 0))
        if at == len(rooms):
            rows.append([part])
            left = row - size
            place = len(rows) - 1
        else:
            room, place = rooms.pop(at)
            rows[place].append(part)
            left = room - size
        if left:
            bisect.insort(rooms, (left, place))
    return rows


def fill_rows(
    tokens: npt.NDArray[np.integer], offsets: npt.NDArray[np.int64], row: int, *, pad: int, seed: int | None = None
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
    """Rows of ids and, beside each id, the number of its document in the row from 1 on; 0 marks padding.

    Both have the shape (row,). `seed` shuffles the rows; without one they come in the order of `best_fit`.
    """
    rows = best_fit(np.diff(offsets).tolist(), row)
    order = np.arange(len(rows)) if seed is None else np.random.default_rng(seed).permutation(len(rows))
    for index in order:
        ids = np.full(row, pad, dtype=np.int64)
        documents = np.zeros(row, dtype=np.int32)
        at = 0
        for number, (document, start, end) in enumerate(rows[index], 1):
            ids[at : at + end - start] = tokens[offsets[document] + start : offsets[document] + end]
            documents[at : at + end - start] = number
            at += end - start
        yield ids, documents
