"""Floor 2, split: which documents are held out, in whole groups, so that relatives stay on one side.

A group is a repository; where one repository would be too much to hold out, a top folder; where that is too much, a
single document. Own sources and reference material are split apart, so that both sides have both. Groups are told apart
by 64 bits of a hash, by which they are also drawn, so nothing but numbers is held. The slow twin is
`tests/reference/split.py`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from highrise.data.arrays import values

__all__ = ["LEVELS", "Split", "split_documents"]

LEVELS = ("repository", "top folder", "document")
_MIN_DOCUMENTS = 20
_ROWS = 1 << 14

_GROUPS: tuple[Callable[[str, str], str], ...] = (
    lambda repository, path: repository,
    lambda repository, path: f"{repository}/{path.partition('/')[0] if '/' in path else ''}",
    lambda repository, path: f"{repository}/{path}",
)


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Which documents are held out, and the level of the groups for own sources and for reference material."""

    held: npt.NDArray[np.bool_]
    """(documents,)"""
    levels: dict[str, str]


def split_documents(documents: pa.Table, *, share: float, seed: int) -> Split:
    """Split a table with the columns `repository`, `path`, `own` and, if it has one, `cluster` (0 or more).

    With 20 documents or more and a share above 0 the held-out side is never empty. Documents of one cluster never
    stand on both sides: relatives of one that is held out are held out with it.
    """
    held = np.zeros(len(documents), dtype=np.bool_)
    levels: dict[str, str] = {}
    if share <= 0:
        return Split(held=held, levels=levels)
    owned = values(documents.column("own"))
    for label, mine in (("own", owned), ("reference", ~owned)):
        members = np.flatnonzero(mine)
        if len(members) < _MIN_DOCUMENTS and (len(members) < 2 or len(documents) < _MIN_DOCUMENTS):
            continue
        chosen, levels[label] = _hold_out(documents, members, share, seed)
        held[chosen] = True
    if "cluster" in documents.column_names and len(documents):
        clusters = values(documents.column("cluster"))
        touched = np.zeros(int(clusters.max()) + 1, dtype=np.bool_)
        touched[clusters[held]] = True
        held = touched[clusters]
    return Split(held=held, levels=levels)


def _hold_out(
    documents: pa.Table, members: npt.NDArray[np.int64], share: float, seed: int
) -> tuple[npt.NDArray[np.int64], str]:
    """The rows to hold out: the coarsest level at which whole groups add up to between half and twice what is wanted.

    What is wanted is the share of the rows, and never less than one.
    """
    wanted = max(1.0, share * len(members))
    for level, group in zip(LEVELS, _GROUPS, strict=True):
        drawn, numbers, sizes = np.unique(
            _draws(documents, group, seed)[members], return_inverse=True, return_counts=True
        )
        taken = np.zeros(len(drawn), dtype=np.bool_)
        count = 0
        for number, size in enumerate(sizes):
            if count >= wanted:
                break
            if count + size <= max(1.0, 2 * wanted):
                taken[number] = True
                count += int(size)
        if level == LEVELS[-1] or (count >= 0.5 * wanted and count < len(members)):
            return members[taken[numbers]], level
    raise AssertionError("the last level always returns")


def _draws(documents: pa.Table, group: Callable[[str, str], str], seed: int) -> npt.NDArray[np.uint64]:
    """(documents,) The number by which the group of each document is drawn, lowest first."""

    @functools.lru_cache(maxsize=4096)
    def draw(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8]

    pieces: list[bytes] = []
    for start in range(0, len(documents), _ROWS):
        rows = documents.slice(start, _ROWS)
        names = zip(rows.column("repository").to_pylist(), rows.column("path").to_pylist(), strict=True)
        pieces.append(b"".join(draw(group(repository, path)) for repository, path in names))
    return np.frombuffer(b"".join(pieces), dtype=">u8").astype(np.uint64)
