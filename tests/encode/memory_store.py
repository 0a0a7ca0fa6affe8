"""The slow and obvious vector store: a dictionary, and every row looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from highrise.core.errors import ConfigError, EncodeError
from highrise.encode.store import Floats, StoredRow, StorePlace

__all__ = ["MemoryStore"]


class MemoryStore:
    """What a `VectorStore` must do. Stores live in `places` by their path; `failing` makes every call fail."""

    places: ClassVar[dict[str, dict[str, tuple[StoredRow, Floats]]]] = {}
    failing = False

    def __init__(self, place: StorePlace, *, dimension: int, create: bool) -> None:
        self._fail()
        if create:
            self.places.setdefault(place.path, {})
        if place.path not in self.places:
            raise EncodeError(f"there is no {place.path}; build the index again")
        self._rows = self.places[place.path]
        for _, vector in self._rows.values():
            if len(vector) != dimension:
                raise ConfigError(
                    f"{place.path} holds vectors of {len(vector)} numbers, the embedder gives {dimension}"
                )

    def _fail(self) -> None:
        if self.failing:
            raise EncodeError("the store is away")

    def ids(self) -> set[str]:
        return set(self._rows)

    def upsert(
        self, rows: Sequence[StoredRow], vectors: Floats, *, advance: Callable[[int], None] = lambda count: None
    ) -> None:
        for row, vector in zip(rows, vectors, strict=True):
            self._rows[row.id] = (row, vector)
            advance(1)

    def delete(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._rows.pop(id, None)

    def search(
        self, vector: Floats, limit: int, *, languages: Sequence[str] | None = None, own: bool | None = None
    ) -> list[str]:
        self._fail()
        scores = {
            id: float(np.dot(vector, there))
            for id, (row, there) in self._rows.items()
            if (languages is None or row.language in languages) and (own is None or row.own == own)
        }
        return sorted(scores, key=lambda id: -scores[id])[:limit]

    def count(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        pass
