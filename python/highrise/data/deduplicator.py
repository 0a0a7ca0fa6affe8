"""Floor 2, deduplicator: the search for duplicates fed in batches, kept in a file, and fed again later.

A crawl of today against what was seen last month. Knows nothing of where the texts come from.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.files import atomic_write, explain_os_error
from highrise.core.native import rust
from highrise.data.columns import Texts, hand_over
from highrise.data.duplicates import Equal, Verify, choose_kept, settings, summary

__all__ = ["Added", "Deduplicator"]


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """What `Deduplicator.add` found about the texts of one batch, given all texts so far."""

    cluster: npt.NDArray[np.int64]
    """(texts,) The label of each text of the batch: the smallest number, over all texts so far, in its cluster."""
    keep: npt.NDArray[np.bool_]
    """(texts,) False where a text like it was seen before, in this batch or an earlier one."""


class Deduplicator:
    """Texts seen so far and their clusters. After any number of batches `cluster` is what one `deduplicate` over all of
    them would give.

    The arguments are those of `highrise.data.deduplicate`. It holds no texts: for each unequal text a signature (4
    bytes a place), its band keys, and, so that borderline pairs can still be compared exactly, its set of shingle
    hashes (about the size of the text). With `verify="estimate"` the sets are not kept: about 0.9 kB a text are left.
    Equality is that of a 128-bit hash of the text. One thread may call it at a time; others wait.
    """

    def __init__(
        self,
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
    ) -> None:
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
        self.threads = chosen.threads
        try:
            self._index = rust.data.DuplicateIndex(chosen)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"cannot look for duplicates: {error}") from error

    def __len__(self) -> int:
        """The number of texts seen."""
        return len(self._index)

    def add(self, texts: Texts) -> Added:
        """See these texts too. Raises `InputError` for what is neither str nor bytes; nothing was added then."""
        first = len(self)
        try:
            cluster = self._index.add(hand_over(texts), self.threads)
        except (ValueError, TypeError) as error:
            raise InputError(f"cannot look for duplicates: {error}") from error
        return Added(cluster=cluster, keep=cluster == np.arange(first, first + len(cluster)))

    @property
    def cluster(self) -> npt.NDArray[np.int64]:
        """(texts,) The label of every text seen, as clusters are now."""
        labels: npt.NDArray[np.int64] = self._index.labels()
        return labels

    @property
    def keep(self) -> npt.NDArray[np.bool_]:
        """(texts,) True for the first text of each cluster."""
        return choose_kept(self.cluster)

    @property
    def statistics(self) -> dict[str, int]:
        """Those of `Duplicates`, and `memory`, the bytes that it holds."""
        return summary(self.cluster, self._index.statistics())

    def save(self, path: str | Path) -> None:
        """Write everything to `path`, whole or not at all. Raises `InputError` when the disk is full."""
        with atomic_write(Path(path)) as file:
            self._index.save(Path(file.name))

    @classmethod
    def load(cls, path: str | Path, *, threads: int | None = None) -> Deduplicator:
        """What `save` wrote; raises `InputError` when `path` is something else, of another version, or damaged."""
        loaded = cls.__new__(cls)
        loaded.threads = usable_cores() if threads is None else max(1, threads)
        try:
            loaded._index = rust.data.DuplicateIndex.load(Path(path), loaded.threads)
        except OSError as error:
            raise explain_os_error(error, f"reading {path}") from error
        except ValueError as error:
            raise InputError(str(error)) from error
        return loaded
