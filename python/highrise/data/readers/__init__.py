"""Floor 2, readers: from one stored object (an archive, a dump, a table, a single file) to a stream of items.

A reader is a function `(Blob, Limits) -> Iterator[Item]`; `reader_for` finds it by the ending of the object's name, a
package's own one through the entry-point group `highrise.adapters` under `reader-ENDING`. Each streams in bounded
memory, turns what it cannot read into an item with a reason, and goes on. Knows nothing of cleaning.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points

from highrise.data.readers.item import Blob, Item, Limits, Reader

__all__ = ["ENDINGS", "Blob", "Item", "Limits", "Reader", "reader_for"]

_PACKAGE = "highrise.data.readers"
_COMPRESSED = r"(?:\.(?:gz|bz2|xz|zst))?$"
_READERS: tuple[tuple[str, str], ...] = (
    (r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2?|txz|crate|gem)$", "archive:read_tar"),
    (r"\.(?:zip|whl|jar|egg|nupkg|vsix)$", "archive:read_zip"),
    (r"\.(?:jsonl|ndjson)" + _COMPRESSED, "tables:read_jsonl"),
    (r"\.parquet$", "tables:read_parquet"),
    (r"\.warc" + _COMPRESSED + r"|\.warc\.(?:wet|wat)(?:\.gz)?$|\.wet(?:\.gz)?$", "warc:read_warc"),
    (r"(?:^|[/-])posts\.xml" + _COMPRESSED, "stackexchange:read_posts"),
)
ENDINGS = ".tar(.gz, .bz2, .xz, .zst), .zip, .whl, .jsonl, .parquet, .warc(.gz), .wet(.gz), Posts.xml"
"""What a person reads about the names that are known."""


def reader_for(name: str) -> Reader:
    """The reader of an object by its name; one that is no container is a single file."""
    lowered = name.lower()
    for pattern, target in _READERS:
        if re.search(pattern, lowered):
            module, _, function = target.partition(":")
            found: Reader = getattr(importlib.import_module(f"{_PACKAGE}.{module}"), function)
            return found
    ending = lowered.rpartition(".")[2]
    for point in entry_points(group="highrise.adapters", name=f"reader-{ending}"):
        foreign: Reader = point.load()
        return foreign
    return importlib.import_module(f"{_PACKAGE}.single").read_single  # type: ignore[no-any-return]
