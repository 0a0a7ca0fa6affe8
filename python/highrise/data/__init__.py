"""Floor 2, data. In: repositories and folders. Out: clean, de-duplicated, screened Parquet, a manifest, a data card."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highrise.data.duplicates import Duplicates, deduplicate

__all__ = ["Duplicates", "deduplicate"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from highrise.data import duplicates

        return getattr(duplicates, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
