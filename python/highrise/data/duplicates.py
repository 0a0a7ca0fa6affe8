"""Floor 2, duplicates: from texts to clusters of equal and nearly equal ones, by the native MinHash of `rust/data`.

Says what is looked for and chooses what to keep of each cluster. Knows nothing of files or sources.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.data.columns import Texts, hand_over

__all__ = [
    "Duplicates",
    "Equal",
    "Settings",
    "Texts",
    "Verify",
    "deduplicate",
    "search_texts",
    "settings",
    "signatures",
]

Verify = Literal["none", "estimate", "borderline", "exact"]
Equal = Literal["bytes", "spaces", "words"]

_SHINGLE = re.compile(r"(\d{1,9}) (word|character)s?")


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """The result: one label and one verdict a text, and what was counted on the way."""

    cluster: npt.NDArray[np.int64]
    """(texts,) The smallest index in the cluster of each text."""
    keep: npt.NDArray[np.bool_]
    """(texts,) True for exactly one text of each cluster."""
    statistics: dict[str, int]
    """texts, bytes, clusters (of two or more), largest_cluster, exact_duplicates, near_duplicates, cut_off (texts that
    closure had joined to a representative unlike them), candidate_pairs, exact_checks, bands, rows."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `settings` made of its arguments, as the native module reads it."""

    threshold: float | None
    num_perm: int
    seed: int
    verify: str
    unit: str
    length: int
    equal: str
    slack: float | None
    bands: tuple[int, int] | None
    threads: int


def settings(
    *,
    threshold: float | None = 0.8,
    num_perm: int = 128,
    threads: int | None = None,
    seed: int = 0,
    verify: Verify = "borderline",
    shingle: str = "5 words",
    equal: Equal = "bytes",
    slack: float | None = 0.03,
    bands: tuple[int, int] | None = None,
) -> Settings:
    """The arguments of `deduplicate` as one value; raises `InputError` for a shingle that is none."""
    match = _SHINGLE.fullmatch(shingle)
    if match is None:
        raise InputError(f'shingle is "{shingle}"; write it as "5 words" or "13 characters"')
    return Settings(
        threshold=threshold,
        num_perm=num_perm,
        seed=seed,
        verify=verify,
        unit=f"{match[2]}s",
        length=int(match[1]),
        equal=equal,
        slack=slack,
        bands=None if bands is None else (int(bands[0]), int(bands[1])),
        threads=usable_cores() if threads is None else max(1, threads),
    )


def deduplicate(
    texts: Texts,
    *,
    threshold: float | None = 0.8,
    num_perm: int = 128,
    threads: int | None = None,
    seed: int = 0,
    verify: Verify = "borderline",
    shingle: str = "5 words",
    equal: Equal = "bytes",
    slack: float | None = 0.03,
    bands: tuple[int, int] | None = None,
    rank: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> Duplicates:
    """Cluster equal and nearly equal texts: Jaccard similarity of shingles ("5 words") of at least `threshold`.

    `threshold=None` finds equal texts only. `equal` says what equal texts share: all bytes, all but white space, or
    their words in lower case; shingles are made of that too. `verify` says how candidate pairs are compared: by the
    estimate and exactly when it is within two standard deviations of the threshold, by the estimate alone, all
    exactly, or not at all. Connected pairs make a cluster, as long as the estimated similarity of each member with the
    cluster's representative (its most typical member) is `threshold - slack` or more; `slack=None` joins whatever is
    connected. `bands` (bands, rows) are chosen for the threshold. Of each cluster the text with the lowest `rank` is
    kept, without `rank` the first. `threads=None` uses every core this process may run on. The clusters depend on
    neither `threads` nor the order of `texts`. Method: Fast Similarity Sketching (arXiv 1704.04370), bands, connected
    components, stars.

    Raises `InputError` for a threshold outside (0, 1], a `num_perm` that is no multiple of 8, bands that the signature
    does not have, or texts that are neither str nor bytes.
    """
    chosen = settings(
        threshold=threshold,
        num_perm=num_perm,
        threads=threads,
        seed=seed,
        verify=verify,
        shingle=shingle,
        equal=equal,
        slack=slack,
        bands=bands,
    )
    return search_texts(texts, chosen, rank)[0]


def search_texts(
    texts: Texts, chosen: Settings, rank: Sequence[int] | npt.NDArray[np.int64] | None = None
) -> tuple[Duplicates, npt.NDArray[np.int64]]:
    """`deduplicate` with ready settings, and (texts,) the labels of whatever is connected, before any is cut off."""
    handed = hand_over(texts)
    try:
        cluster, connected, counted = rust.data.deduplicate(handed, chosen)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"cannot look for duplicates: {error}") from error
    found = Duplicates(cluster=cluster, keep=choose_kept(cluster, rank), statistics=summary(cluster, counted))
    return found, connected


def signatures(
    texts: Texts,
    *,
    num_perm: int = 128,
    threads: int | None = None,
    seed: int = 0,
    shingle: str = "5 words",
    equal: Equal = "bytes",
) -> npt.NDArray[np.uint32]:
    """MinHash signatures, shape (texts, num_perm). The share of equal places of two rows estimates their Jaccard
    similarity J with a standard deviation of at most sqrt(J (1 - J) / num_perm)."""
    chosen = settings(num_perm=num_perm, threads=threads, seed=seed, shingle=shingle, equal=equal)
    try:
        rows: npt.NDArray[np.uint32] = rust.data.signatures(hand_over(texts), chosen)[0]
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"cannot make signatures: {error}") from error
    return rows


def summary(cluster: npt.NDArray[np.int64], counted: dict[str, int]) -> dict[str, int]:
    """The statistics of a result: what the native module counted, and what the labels say."""
    sizes = np.bincount(cluster) if len(cluster) else np.zeros(0, dtype=np.int64)
    kept = int(np.count_nonzero(sizes))
    return {
        "texts": len(cluster),
        "clusters": int(np.count_nonzero(sizes > 1)),
        "largest_cluster": int(sizes.max(initial=0)),
        "near_duplicates": len(cluster) - kept - counted["exact_duplicates"],
        **counted,
    }


def choose_kept(
    cluster: npt.NDArray[np.int64], rank: Sequence[int] | npt.NDArray[np.int64] | None = None
) -> npt.NDArray[np.bool_]:
    """One True a cluster: the lowest rank, of equal ranks the first."""
    if rank is None:
        first: npt.NDArray[np.bool_] = cluster == np.arange(len(cluster))
        return first
    ranks: npt.NDArray[Any] = np.asarray(rank)
    if len(ranks) != len(cluster):
        raise InputError(f"rank has {len(ranks)} values for {len(cluster)} texts; give one a text")
    order = np.lexsort((np.arange(len(cluster)), ranks, cluster))
    sorted_labels = cluster[order]
    keep = np.zeros(len(cluster), dtype=np.bool_)
    keep[order[np.r_[True, sorted_labels[1:] != sorted_labels[:-1]][: len(order)]]] = True
    return keep
