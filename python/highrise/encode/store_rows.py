"""Floor 3, rows of a store: which rows an index wants there, and how a store is brought to hold just these.

A row's id is a hash of all that is stored in it and of the model, so what is unchanged is known by its id alone: only
changed rows travel, and a build that was killed goes on. What is there is asked of the store itself, not remembered.
Knows nothing of how a store does its work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from highrise.core.errors import InputError
from highrise.encode.chunk_store import ChunkRecord
from highrise.encode.store import Floats, StoredRow, VectorStore

__all__ = ["Exchange", "bring_up_to_date", "row_of"]

_ID_DIGITS = 32


class Exchange(msgspec.Struct, frozen=True):
    """What travelled to a store."""

    num_sent: int
    num_removed: int
    num_kept: int


def row_of(record: ChunkRecord, key: bytes, weights: str) -> StoredRow:
    """The row of a chunk whose embedded text has the hash `key`; equal chunks of one source share a row."""
    parts = (weights, key.hex(), record.path, record.source, record.language, str(record.own))
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return StoredRow(digest[:_ID_DIGITS], record.path, record.source, record.language, record.own)


def bring_up_to_date(
    store: VectorStore,
    rows: Sequence[StoredRow],
    vectors: Floats,
    *,
    known: bool,
    advance: Callable[[int], None] = lambda count: None,
) -> Exchange:
    """Send what `store` lacks of `rows` (`vectors` are theirs, row by row), then remove what is none of them.

    `known` says that an earlier build of this index used the store; otherwise one whose rows are all foreign is an
    `InputError`, since they would be lost.
    """
    there = store.ids()
    first = {row.id: number for number, row in reversed(list(enumerate(rows)))}
    new = sorted(number for id, number in first.items() if id not in there)
    old = sorted(there - first.keys())
    if old and len(old) == len(there) and not known:
        raise InputError(
            f"the store holds {len(there)} rows of another index, which would be removed; name another table, "
            "collection or namespace in index.store, or empty this one"
        )
    if new:
        store.upsert([rows[number] for number in new], np.ascontiguousarray(vectors[new]), advance=advance)
    if old:
        store.delete(old)
    return Exchange(len(new), len(old), len(there) - len(old))
