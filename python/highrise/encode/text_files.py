"""Floor 3, text files: files of any size, read a block at a time and cut where no piece of a split can reach across.

A cut lies behind a newline between a character that is not blank and an ASCII letter or digit: there every known split
pattern ends a piece, and cuts what lies before it as if it were the end of the text (tested for all of them). A file
without such a place is held whole. Knows nothing of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from highrise.core.errors import InputError
from highrise.encode.texts import FlatTexts

__all__ = ["flat_parts"]

_CUT = re.compile(rb"[!-~]\n(?=[0-9A-Za-z])")
_BLOCK_BYTES = 8 << 20
_PART_BYTES = 1 << 18


def flat_parts(path: Path, *, block_bytes: int = _BLOCK_BYTES, part_bytes: int = _PART_BYTES) -> Iterator[FlatTexts]:
    """The bytes of a file in arrays of about `block_bytes`, each with offsets of parts of about `part_bytes`."""
    rest = bytearray()
    try:
        with path.open("rb") as file:
            while block := file.read(block_bytes):
                rest += block
                cuts = list(_cuts(rest, part_bytes))
                if len(cuts) > 1:
                    whole, rest = rest[: cuts[-1]], rest[cuts[-1] :]
                    yield np.frombuffer(whole, np.uint8), np.array(cuts, np.int64)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if rest:
        yield np.frombuffer(rest, np.uint8), np.array([*_cuts(rest, part_bytes), len(rest)], np.int64)


def _cuts(content: bytearray, part_bytes: int) -> Iterator[int]:
    """Where parts begin, from 0 on; each but the last has at least `part_bytes`."""
    at = 0
    yield at
    while found := _CUT.search(content, at + part_bytes):
        at = found.end()
        yield at
