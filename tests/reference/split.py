"""The slow and obvious version of `data/split.py`: lists of rows, sets of names."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

__all__ = ["LEVELS", "Split", "split_rows"]

LEVELS = ("repository", "top folder", "document")
_MIN_DOCUMENTS = 20


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One side a document, and the level of the groups for own sources and for reference material."""

    sides: list[str]
    levels: dict[str, str]


def split_rows(
    rows: Sequence[tuple[str, str, bool]], *, share: float, seed: int, clusters: Sequence[int] | None = None
) -> Split:
    """Split (repository, path, own) rows; with 20 rows or more and a share above 0 the held-out side is never empty.

    Rows of one cluster of near duplicates never stand on both sides: relatives of a held-out row are held out with it.
    """
    sides = ["train"] * len(rows)
    levels: dict[str, str] = {}
    if share <= 0:
        return Split(sides=sides, levels=levels)
    for label, own in (("own", True), ("reference", False)):
        members = [index for index, row in enumerate(rows) if row[2] is own]
        if len(members) < _MIN_DOCUMENTS and (len(members) < 2 or len(rows) < _MIN_DOCUMENTS):
            continue
        chosen, levels[label] = _hold_out(rows, members, share, seed)
        for index in chosen:
            sides[index] = "validation"
    if clusters is not None:
        held = {cluster for cluster, side in zip(clusters, sides, strict=True) if side == "validation"}
        sides = ["validation" if cluster in held else "train" for cluster in clusters]
    return Split(sides=sides, levels=levels)


def _hold_out(
    rows: Sequence[tuple[str, str, bool]], members: list[int], share: float, seed: int
) -> tuple[list[int], str]:
    """The rows to hold out: the coarsest level at which whole groups add up to between half and twice the share."""
    wanted = max(1.0, share * len(members))
    keys: tuple[Callable[[int], str], ...] = (
        lambda i: rows[i][0],
        lambda i: f"{rows[i][0]}/{rows[i][1].partition('/')[0] if '/' in rows[i][1] else ''}",
        lambda i: f"{rows[i][0]}/{rows[i][1]}",
    )
    for level, key in zip(LEVELS, keys, strict=True):
        groups: dict[str, list[int]] = defaultdict(list)
        for index in members:
            groups[key(index)].append(index)
        chosen: list[int] = []
        for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest()):
            if len(chosen) < wanted and len(chosen) + len(groups[name]) <= max(1.0, 2 * wanted):
                chosen.extend(groups[name])
        if level == LEVELS[-1] or (len(chosen) >= 0.5 * wanted and len(chosen) < len(members)):
            return chosen, level
    raise AssertionError("the last level always returns")
