"""Floor 5, choice: which documents of a data folder are learnt from, and which judge what was learnt.

The team's own files come first. The split of floor 2 holds whole folders back, so it may hold back prose alone; a
language that matters and is short there is judged by some of its own files, which are then not learnt from, and where
there are too few of those by reference material. Knows no tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from highrise.core.document import Document
from highrise.data.shards import read_documents

__all__ = ["Choice", "choose", "is_prose"]

_OWN_CHARACTERS = 20_000_000
_REFERENCE_CHARACTERS = 5_000_000
_ENOUGH_OWN_CHARACTERS = 50_000
_ENOUGH_HELD_OUT_CHARACTERS = 10_000
_LANGUAGE_SHARE = 0.1
_HELD_BACK_SHARE = 0.08
_PROSE = frozenset({"markdown", "text", "restructuredtext", "rst", "asciidoc", "tex", "latex", "html"})


class Choice(NamedTuple):
    """Documents to learn from and documents that judge; none is in both."""

    train: list[Document]
    held_out: list[Document]


def is_prose(document: Document) -> bool:
    """Whether a document is for people to read rather than for a machine to run."""
    return document.language in _PROSE


def choose(data_folder: Path) -> Choice:
    """The choice for a data folder; either side may be empty, and the caller says so."""
    own = _up_to(data_folder, "train", own=True, limit=_OWN_CHARACTERS)
    held_out = _up_to(data_folder, "validation", own=True, limit=_OWN_CHARACTERS)
    few = sum(len(document.text) for document in own) < _ENOUGH_OWN_CHARACTERS
    reference = _up_to(data_folder, "train", own=False, limit=_REFERENCE_CHARACTERS) if few else []
    back = _hold_back(own, _short(own + reference, held_out))
    taken = {(document.source, document.path) for document in back}
    train = [document for document in own if (document.source, document.path) not in taken] + reference
    held_out += back
    short = _short(train, held_out)
    if short or not held_out:
        others = _up_to(data_folder, "validation", own=False, limit=_REFERENCE_CHARACTERS)
        held_out += [document for document in others if document.language in short or not held_out]
    return Choice(train, held_out)


def _short(train: Sequence[Document], held_out: Sequence[Document]) -> set[str]:
    """The languages that are a tenth or more of what is learnt from, and hardly there among what judges."""
    trained, there = _characters(train), _characters(held_out)
    least = _LANGUAGE_SHARE * sum(trained.values())
    return {
        language
        for language, size in trained.items()
        if size >= least and there[language] < _ENOUGH_HELD_OUT_CHARACTERS
    }


def _hold_back(own: Sequence[Document], languages: set[str]) -> list[Document]:
    """About a twelfth of the own files of each language, by their hashes: an edit to one file moves no other."""
    back: list[Document] = []
    for language in sorted(languages):
        files = sorted((d for d in own if d.language == language), key=lambda document: document.sha256)
        wanted = _HELD_BACK_SHARE * sum(len(document.text) for document in files)
        size = 0
        for document in files:
            if size >= wanted or len(files) < 8:
                break
            back.append(document)
            size += len(document.text)
    return back


def _characters(documents: Iterable[Document]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for document in documents:
        sizes[document.language] += len(document.text)
    return sizes


def _up_to(data_folder: Path, split: str, *, own: bool, limit: int) -> list[Document]:
    found: list[Document] = []
    size = 0
    for document in read_documents(data_folder, split=split, own=own):
        if size >= limit:
            break
        found.append(document)
        size += len(document.text)
    return found
