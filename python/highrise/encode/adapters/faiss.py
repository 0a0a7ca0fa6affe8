"""Floor 3, FAISS: nearest vectors by inner product, every one looked at (flat) or over an HNSW graph of 8-bit codes.

Which one is chosen by number. Knows nothing of chunks or models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write

__all__ = ["FaissIndex", "Kind", "write_faiss"]

Kind = Literal["flat", "hnsw-sq8"]

_LINKS = 16
_BUILD_BREADTH = 80
_SEARCH_BREADTH = 96


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise EncodeError(f"vectors need faiss ({error}): install highrise[encode]") from error
    return faiss


def write_faiss(path: Path, vectors: npt.NDArray[np.float32], *, flat_up_to: int, threads: int) -> Kind:
    """Index `vectors`, float32 (n, d) with rows of length one, into the file `path`."""
    faiss = _faiss()
    dimension = vectors.shape[1]
    vectors = np.ascontiguousarray(vectors)
    kind: Kind = "flat" if len(vectors) <= flat_up_to else "hnsw-sq8"
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_BREADTH
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        if kind != "flat":
            index.train(vectors)
        index.add(vectors)
    finally:
        faiss.omp_set_num_threads(before)
    with atomic_write(path) as file:
        file.write(faiss.serialize_index(index).data)
    return kind


class FaissIndex:
    """An opened index; searching from many threads is safe. A query uses one thread."""

    def __init__(self, path: Path) -> None:
        self._faiss = _faiss()
        try:
            self._index = self._faiss.read_index(str(path))
        except RuntimeError as error:
            raise InputError(f"the vector index {path} is damaged; build the index again") from error
        self._graph = hasattr(self._index, "hnsw")

    @property
    def num_vectors(self) -> int:
        """Rows in the index."""
        return int(self._index.ntotal)

    def search(
        self, vector: npt.NDArray[np.float32], limit: int, *, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.int64]:
        """Rows nearest to `vector` (d,), best first, at most `limit`, only those that `allowed` (n,) marks."""
        options: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")
            options["sel"] = self._faiss.IDSelectorBitmap(len(allowed), self._faiss.swig_ptr(bits))
        if self._graph:
            params = self._faiss.SearchParametersHNSW(efSearch=max(_SEARCH_BREADTH, limit), **options)
        else:
            params = self._faiss.SearchParameters(**options) if options else None
        query = np.ascontiguousarray(vector[None, :], dtype=np.float32)
        _, rows = self._index.search(query, min(limit, self.num_vectors), params=params)
        found: npt.NDArray[np.int64] = rows[0][rows[0] >= 0]
        return found
