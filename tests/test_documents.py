"""The documents keep their word: links lead somewhere, commands are understood, no merge was left half done."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from highrise.cli import build_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/**/*.md")])
USERS = [ROOT / "README.md", *sorted(ROOT.glob("docs/floors/*.md"))]
"""Those whose commands are meant to be typed today; the log and the change log tell of older ones."""


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def links(text: str) -> Iterator[str]:
    """Targets of links that stay in the repository, without their anchors."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            yield target.split("#")[0]


def commands(text: str) -> Iterator[str]:
    """Lines of code blocks that call highrise, as far as a pipe or a redirection."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("highrise "):
                yield re.split(r"\s(?:\||>|<|&&|&)(?:\s|$)", line)[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    lost = [target for target in links(path.read_text()) if not (path.parent / target).exists()]
    assert lost == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_no_merge_was_left_half_done(path: Path) -> None:
    marks = [line for line in path.read_text().splitlines() if re.match(r"(<{7}|>{7})( |$)", line)]
    assert marks == []


@pytest.mark.parametrize("path", USERS, ids=name)
def test_commands_are_understood(path: Path) -> None:
    parser = build_parser()
    refused = []
    for line in commands(path.read_text()):
        words = shlex.split(line, comments=True)[1:]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                parser.parse_args(words)
            except SystemExit as left:
                if left.code:
                    refused.append(f"{line}: {said.getvalue().splitlines()[-1]}")
    assert refused == []


def test_the_commands_are_found() -> None:
    assert sum(len(list(commands(path.read_text()))) for path in USERS) >= 40
