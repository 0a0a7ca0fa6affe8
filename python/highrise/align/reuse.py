"""Floor 5, reuse: whether an adapter still fits sources that have changed a little since it was tuned.

Every edit changes the data stage; tuning again after each would make a start after work take minutes, and one edited
file hardly changes what an adapter knows. Beside the card lies what the adapter was made of, by hash and size. Knows
no torch and no stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from highrise.align.choice import choose
from highrise.core.document import Document
from highrise.core.files import atomic_write
from highrise.core.json_text import decode_json

__all__ = ["LEARNT", "RETUNE_SHARE", "changed_share", "write_learnt"]

LEARNT = "learnt.json"
RETUNE_SHARE = 0.1
"""An adapter is kept while less than this share of the text it was made of is gone or new."""


def write_learnt(out: Path, documents: Iterable[Document]) -> None:
    """Write into `out` which documents an adapter was made of and judged by."""
    with atomic_write(out / LEARNT) as file:
        file.write(msgspec.json.encode(_sizes(documents), order="sorted"))


def changed_share(folder: Path, data_folder: Path) -> float | None:
    """Which share of the text that the adapter in `folder` was made of has changed in `data_folder`, by characters.

    A changed file counts once, as the longer of its versions; None when the folder does not say what it was made of.
    """
    try:
        before = decode_json((folder / LEARNT).read_bytes(), dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return None
    now = _sizes(document for side in choose(data_folder) for document in side)
    return max(_missing(before, now), _missing(now, before)) / max(1, sum(before.values()))


def _missing(these: Mapping[str, int], those: Mapping[str, int]) -> int:
    return sum(size for name, size in these.items() if name not in those)


def _sizes(documents: Iterable[Document]) -> dict[str, int]:
    return {document.sha256: len(document.text) for document in documents}
