"""Floor 2, duplicates: from texts to clusters of equal and nearly equal ones, by the native MinHash of `rust/data`.

Hands inputs over without copying them and chooses what to keep of each cluster. Knows nothing of files or sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.native import rust

__all__ = ["Duplicates", "Texts", "Verify", "deduplicate", "signatures"]

Verify = Literal["estimate", "borderline", "exact"]
Texts = Any
"""A sequence of str or of bytes, or an Arrow string or binary array, chunked or not (a type without stubs)."""

_ARROW = {"string": False, "binary": False, "large_string": True, "large_binary": True}


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """The result: one label and one verdict a text, and what was counted on the way."""

    cluster: npt.NDArray[np.int64]
    """(texts,) The smallest index in the cluster of each text."""
    keep: npt.NDArray[np.bool_]
    """(texts,) True for exactly one text of each cluster."""
    statistics: dict[str, int]
    """texts, bytes, exact_duplicates, near_duplicates, candidate_pairs, exact_checks, bands, rows."""


def deduplicate(
    texts: Texts,
    *,
    threshold: float | None = 0.8,
    num_perm: int = 128,
    threads: int | None = None,
    seed: int = 0,
    verify: Verify = "borderline",
    rank: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Duplicates:
    """Cluster equal and nearly equal texts: Jaccard similarity of word 5-grams of at least `threshold`.

    `threshold=None` finds equal texts only. `verify` says which candidate pairs are compared exactly: those whose
    estimate is within three standard deviations of the threshold, none, or all. Of each cluster the text with the
    lowest `rank` is kept, without `rank` the first. `threads=None` uses every core this process may run on. The
    clusters depend on neither `threads` nor the order of `texts`. Method: Fast Similarity Sketching (arXiv
    1704.04370), bands, connected components.

    Raises `InputError` for a threshold outside (0, 1], a `num_perm` that is no multiple of 8, or texts that are
    neither str nor bytes.
    """
    handed = _hand_over(texts)
    try:
        cluster, statistics = rust.data.deduplicate(handed, threshold, num_perm, _count(threads), seed, verify)
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot look for duplicates: {error}") from error
    return Duplicates(cluster=cluster, keep=_keep(cluster, rank), statistics=statistics)


def signatures(
    texts: Texts, *, num_perm: int = 128, threads: int | None = None, seed: int = 0
) -> npt.NDArray[np.uint32]:
    """MinHash signatures, shape (texts, num_perm). The share of equal places of two rows estimates their Jaccard
    similarity J with a standard deviation of at most sqrt(J (1 - J) / num_perm)."""
    try:
        rows: npt.NDArray[np.uint32] = rust.data.signatures(_hand_over(texts), num_perm, _count(threads), seed)
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot make signatures: {error}") from error
    return rows


def _count(threads: int | None) -> int:
    return usable_cores() if threads is None else max(1, threads)


def _keep(cluster: npt.NDArray[np.int64], rank: Sequence[int] | npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    """One True a cluster: the lowest rank, of equal ranks the first."""
    if rank is None:
        first: npt.NDArray[np.bool_] = cluster == np.arange(len(cluster))
        return first
    ranks = np.asarray(rank)
    if len(ranks) != len(cluster):
        raise InputError(f"rank has {len(ranks)} values for {len(cluster)} texts; give one a text")
    order = np.lexsort((np.arange(len(cluster)), ranks, cluster))
    sorted_labels = cluster[order]
    keep = np.zeros(len(cluster), dtype=np.bool_)
    keep[order[np.r_[True, sorted_labels[1:] != sorted_labels[:-1]][: len(order)]]] = True
    return keep


def _hand_over(texts: Texts) -> list[Any]:
    """What the native module takes: a list of texts, or (offsets, data, first, rows, wide) for each Arrow chunk."""
    if isinstance(texts, list):
        return texts
    chunks = getattr(texts, "chunks", [texts] if hasattr(texts, "buffers") else None)
    if chunks is None:
        if isinstance(texts, (str, bytes)):
            raise InputError(f"texts is one {type(texts).__name__}; give a list of texts")
        return list(texts)
    handed: list[Any] = []
    for chunk in chunks:
        if str(chunk.type) not in _ARROW:
            raise InputError(f"the Arrow column has type {chunk.type}; give a string or binary column")
        if chunk.null_count:
            raise InputError(f"the Arrow column has {chunk.null_count} nulls; drop or fill them first")
        if not len(chunk):
            continue
        _, offsets, data = chunk.buffers()
        nothing = np.empty(0, dtype=np.uint8)
        view = np.frombuffer(data, dtype=np.uint8) if data is not None and data.size else nothing
        marks = np.frombuffer(offsets, dtype=np.uint8)
        handed.append((marks, view, chunk.offset, len(chunk), _ARROW[str(chunk.type)]))
    return handed
