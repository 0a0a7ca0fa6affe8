"""Floor 2, data. In: repositories and folders. Out: clean, de-duplicated, screened Parquet, a manifest, a data card."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highrise.data.deduplicator import Added, Deduplicator
    from highrise.data.duplicates import Duplicates, deduplicate
    from highrise.data.repeats import FrequentLines, Spans, cut, frequent_lines, repeated_spans

__all__ = [
    "Added",
    "Deduplicator",
    "Duplicates",
    "FrequentLines",
    "Spans",
    "cut",
    "deduplicate",
    "frequent_lines",
    "repeated_spans",
]

_MODULES = {
    "Added": "deduplicator",
    "Deduplicator": "deduplicator",
    "Duplicates": "duplicates",
    "deduplicate": "duplicates",
}


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module(f"highrise.data.{_MODULES.get(name, 'repeats')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
