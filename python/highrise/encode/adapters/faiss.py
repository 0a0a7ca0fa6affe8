"""Floor 3, FAISS: nearest vectors by inner product: every one (flat), over an HNSW graph of 8-bit codes, or in lists.

Which one is chosen by number. The lists (IVF) hold product-quantised codes of 4 bits that are compared in registers;
the best of them are compared again at 8 bits. Knows nothing of chunks or models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from highrise.core.errors import EncodeError, InputError
from highrise.core.files import atomic_write

__all__ = ["FaissIndex", "Kind", "write_faiss"]

Kind = Literal["flat", "hnsw-sq8", "ivf-pq"]

_LINKS = 16
_BUILD_BREADTH = 80
_SEARCH_BREADTH = 96
_LISTS_PER_ROOT = 2
"""Lists: twice the square root of the number of vectors, so that one list is about as long as there are lists."""
_PROBES = 64
_REFINE = 8
"""So many times the wanted number are compared again at 8 bits."""
_TRAINING_VECTORS = 64
"""To find a list's middle."""


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise EncodeError(f"vectors need faiss ({error}): install highrise[encode]") from error
    return faiss


def write_faiss(
    path: Path, vectors: npt.NDArray[np.float32], *, flat_up_to: int, threads: int, graph_up_to: int = 1 << 62
) -> Kind:
    """Index `vectors`, float32 (n, d) with rows of length one, into the file `path`."""
    faiss = _faiss()
    dimension = vectors.shape[1]
    vectors = np.ascontiguousarray(vectors)
    kind: Kind = "flat" if len(vectors) <= flat_up_to else "hnsw-sq8" if len(vectors) <= graph_up_to else "ivf-pq"
    training = vectors
    if kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    elif kind == "ivf-pq":
        lists = max(1, int(_LISTS_PER_ROOT * len(vectors) ** 0.5))
        codes = next(parts for parts in (4, 2, 1) if dimension % parts == 0)
        index = faiss.index_factory(
            dimension, f"IVF{lists},PQ{dimension // codes}x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT
        )
        if len(vectors) > lists * _TRAINING_VECTORS:
            chosen = np.random.default_rng(0).choice(len(vectors), lists * _TRAINING_VECTORS, replace=False)
            training = np.ascontiguousarray(vectors[np.sort(chosen)])
    else:
        index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_BREADTH
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        if kind != "flat":
            index.train(training)
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
        self._lists = hasattr(self._index, "refine_index")

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
        elif self._lists:
            inner = self._faiss.SearchParametersIVF(nprobe=_PROBES, **options)
            params = self._faiss.IndexRefineSearchParameters(k_factor=_REFINE, base_index_params=inner)
        else:
            params = self._faiss.SearchParameters(**options) if options else None
        query = np.ascontiguousarray(vector[None, :], dtype=np.float32)
        _, rows = self._index.search(query, min(limit, self.num_vectors), params=params)
        found: npt.NDArray[np.int64] = rows[0][rows[0] >= 0]
        return found
