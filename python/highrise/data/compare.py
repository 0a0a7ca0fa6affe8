"""Floor 2, compare: what changed between two builds, file by file. Knows nothing of how they were made."""

from __future__ import annotations

from pathlib import Path

import msgspec

from highrise.data.shards import data_manifest, read_columns

__all__ = ["Difference", "compare"]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Names (`repository/path`) by what became of them, sorted."""

    added: list[str]
    """Only in the second build, and kept there."""
    removed: list[str]
    """Only in the first build, and kept there."""
    changed: list[str]
    """Kept in both with another text."""
    now_kept: list[tuple[str, str]]
    """Name and the reason for which the first build dropped it."""
    now_dropped: list[tuple[str, str]]
    """Name and the reason for which the second build drops it."""
    same: int
    """Documents kept in both, text for text."""
    moved: int
    """Of those, documents that are on another side of the split."""


def compare(first: Path, second: Path) -> Difference:
    """Compare two data folders; `InputError` when one is none."""
    before, after = _fates(first), _fates(second)
    both = before.keys() & after.keys()
    kept = {name for name in both if not before[name][0] and not after[name][0]}
    same = {name for name in kept if before[name][1] == after[name][1]}
    return Difference(
        added=sorted(name for name in after.keys() - both if not after[name][0]),
        removed=sorted(name for name in before.keys() - both if not before[name][0]),
        changed=sorted(kept - same),
        now_kept=sorted((name, before[name][0]) for name in both if before[name][0] and not after[name][0]),
        now_dropped=sorted((name, after[name][0]) for name in both if after[name][0] and not before[name][0]),
        same=len(same),
        moved=sum(before[name][2] != after[name][2] for name in same),
    )


def _fates(folder: Path) -> dict[str, tuple[str, str, str]]:
    data_manifest(folder)
    columns = ["repository", "path", "reason", "sha256", "split"]
    rows = read_columns(folder / "files.parquet", columns).to_pylist()
    return {f"{row['repository']}/{row['path']}": (row["reason"], row["sha256"], row["split"]) for row in rows}
