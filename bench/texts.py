"""Texts for the tokenizer's benchmarks, from what is installed anyway: code, prose, many languages. Knows no tokenizer.

Code is the standard library, prose its docstrings and topics and those of numpy and torch, many languages are the
translations in Django's message catalogues (skipped where Django is not installed).
"""

from __future__ import annotations

import ast
import functools
import inspect
import random
import re
import sysconfig
from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

KINDS = ("code", "prose", "multilingual")
PIECE = 8192


def _sources(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if "site-packages" not in path.relative_to(root).parts:
            yield path.read_text("utf-8", "replace")


def _package(name: str) -> Path | None:
    found = util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


# Tokens of a syntax tree would be exact and take ten times as long.
_DOCSTRING = re.compile(r'"""((?:[^"\\]|\\.|"(?!""))*)"""', re.S)


def _docstrings(text: str) -> Iterator[str]:
    for found in _DOCSTRING.finditer(text):
        if len(found[1]) > 150:
            yield inspect.cleandoc(found[1])


def _prose() -> Iterator[str]:
    from pydoc_data.topics import topics

    yield from topics.values()
    roots = [Path(sysconfig.get_paths()["stdlib"]), _package("numpy"), _package("torch")]
    for root in roots:
        for text in _sources(root) if root else ():
            yield from _docstrings(text)


def _translations() -> Iterator[str]:
    root = _package("django")
    if root is None:
        pytest.skip("texts in many languages come from Django's catalogues, and Django is not installed")
    for path in sorted(root.rglob("*.po")):
        text = re.sub(r'^msgid(?:_plural)? (?:".*"\n)+', "", path.read_text("utf-8"), flags=re.M)
        lines = re.findall(r'^(?:msgstr(?:\[\d\])? )?"(.*)"$', text, re.M)
        yield "\n".join(ast.literal_eval(f'"{line}"') for line in lines if not line.isascii())


@functools.cache
def pieces(kind: str, size: int = PIECE) -> tuple[str, ...]:
    """All texts of a kind in pieces of about `size` characters, in an order that is the same on every run."""
    if kind == "code":
        texts = list(_sources(Path(sysconfig.get_paths()["stdlib"])))
    elif kind == "prose":
        texts = ["\n\n".join(_prose())]
    else:
        texts = list(_translations())
    cut = [text[at : at + size] for text in texts for at in range(0, len(text), size)]
    random.Random(3).shuffle(cut)
    return tuple(cut)


def taken(kind: str, *sizes: int) -> list[list[str]]:
    """Parts of a kind's texts of about these numbers of UTF-8 bytes, none of which meets another."""
    rest = iter(pieces(kind))
    parts: list[list[str]] = []
    for size in sizes:
        part: list[str] = []
        while size > 0 and (piece := next(rest, None)) is not None:
            part.append(piece)
            size -= len(piece.encode())
        parts.append(part)
    return parts


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6
