"""Floor 0, document: one text with where it came from, as it travels from data to encode and train."""

from __future__ import annotations

import msgspec

__all__ = ["Document"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A text of a source. The Parquet shards of the data floor have these columns."""

    text: str
    path: str
    """Path inside the source, with forward slashes."""
    source: str
    """The source as the configuration named it (folder or git URL)."""
    repository: str
    """Name of the repository or folder: documents of one repository never sit on both sides of a split."""
    language: str
    """Lower-case name of the (programming) language: "python", "rust", "markdown", "text"."""
    license: str
    """SPDX identifier, or "unknown"."""
    sha256: str
    """Of the text as stored, UTF-8."""
    quality: float
    """Score in [0, 1]."""
    own: bool
    """True for the team's own sources, False for reference material such as the standard library."""
    split: str
    """"train" or "validation"."""
