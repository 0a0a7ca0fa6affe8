"""Floor 2, decide: which of the cleaned records are kept, which stands for a duplicate, and which are held out.

Numbers a record, no names: what is held is some 50 bytes a record. The best of a cluster is the team's own, then the
best score, then the first path. Knows nothing of files that were never cleaned.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from highrise.data.arrays import flags, integers, scalar, strings, values
from highrise.data.config import DataConfig
from highrise.data.duplicates import settings
from highrise.data.labels import read_verdicts
from highrise.data.records import Records
from highrise.data.search import PassedTexts, find_duplicates
from highrise.data.split import split_documents

__all__ = ["EQUAL", "KEPT", "NEAR", "REJECTED", "STANDS", "Fates", "decide"]

STANDS, KEPT, EQUAL, NEAR, REJECTED = range(5)
"""What became of a record: it stands as it was cleaned (dropped), or it was decided here."""
_RELATIVES = 0.8
_ROWS = 1 << 14


class Fates(msgspec.Struct, frozen=True, kw_only=True):
    """One place a record in each array."""

    fate: npt.NDArray[np.uint8]
    winner: npt.NDArray[np.int64]
    """The record that is kept for it, itself when it is kept; -1 when it was dropped before."""
    cluster: npt.NDArray[np.int64]
    """A label of whatever is connected with it; -1 when it was dropped before."""
    held: npt.NDArray[np.bool_]
    """Kept, and held out."""
    levels: dict[str, str]
    """How the held-out groups were chosen, see `split.py`."""
    statistics: dict[str, int]
    """Of the duplicate search."""


def decide(config: DataConfig, records: Records, parts: list[Path], *, workers: int) -> Fates | None:
    """The fate of every record; None when none is usable."""
    fate = np.zeros(len(records), dtype=np.uint8)
    facts = records.table(["reason", "sha256"])
    usable = values(pc.equal(facts.column("reason"), scalar("")))
    if config.verdicts:
        verdicts = read_verdicts(Path(config.verdicts).expanduser())
        listed = strings([digest for digest, verdict in verdicts.items() if verdict == "drop"])
        rejected = values(pc.is_in(facts.column("sha256"), value_set=listed))
        fate[rejected] = REJECTED
        usable &= ~rejected
    kept = np.flatnonzero(usable)
    if not len(kept):
        return None
    duplicates, related = find_duplicates(
        PassedTexts(tuple(parts), usable),
        settings(
            threshold=config.near_duplicate or _RELATIVES,
            num_perm=config.num_perm,
            threads=max(1, workers),
            seed=config.seed,
        ),
        rank=_rank(records, usable, kept),
        equal_only=not config.near_duplicate,
        memory=config.search_memory,
        folder=parts[0].parent / "search",
    )
    best = np.full(len(kept), -1, dtype=np.int64)
    best[duplicates.cluster[duplicates.keep]] = kept[duplicates.keep]
    winner = np.full(len(records), -1, dtype=np.int64)
    winner[kept] = best[duplicates.cluster]
    fate[kept] = KEPT
    dropped = kept[~duplicates.keep]
    fate[dropped] = np.where(_same(records, dropped, winner[dropped]), EQUAL, NEAR)
    cluster = np.full(len(records), -1, dtype=np.int64)
    cluster[kept] = related
    chosen = np.flatnonzero(fate == KEPT)
    documents = records.table(["repository", "path", "own"]).filter(flags(fate == KEPT))
    documents = documents.append_column("cluster", integers(cluster[chosen]))
    split = split_documents(documents, share=config.validation, seed=config.seed)
    held = np.zeros(len(records), dtype=np.bool_)
    held[chosen[split.held]] = True
    return Fates(
        fate=fate, winner=winner, cluster=cluster, held=held, levels=split.levels, statistics=duplicates.statistics
    )


def _rank(records: Records, usable: npt.NDArray[np.bool_], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(kept,) The place of each usable record when the best stands first."""
    table = records.table(["own", "quality", "repository", "path"])
    table = table.append_column("row", integers(np.arange(len(records))))
    keys = [("own", "descending"), ("quality", "descending")]
    keys += [(name, "ascending") for name in ("repository", "path", "row")]
    order = values(pc.sort_indices(table, sort_keys=keys))
    order = order[usable[order]]
    rank = np.empty(len(records), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[kept]


def _same(records: Records, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the texts of two lists of records are equal, by their hash."""
    same = np.empty(len(left), dtype=np.bool_)
    for start in range(0, len(left), _ROWS):
        pair = [records.take(rows[start : start + _ROWS], ["sha256"]).column(0) for rows in (left, right)]
        same[start : start + _ROWS] = values(pc.equal(*pair))
    return same
