"""Chunks cover every line that is not blank, once, and follow definitions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.document import Document
from highrise.encode.chunk import LANGUAGES, Chunk, chunk_document


def document(text: str, *, language: str = "python", path: str = "a/b.py", own: bool = True) -> Document:
    return Document(
        text=text, path=path, source=".", repository="here", language=language, license="unknown", sha256="0" * 64,
        quality=1.0, own=own, split="train",
    )  # fmt: skip


def assert_whole(text: str, chunks: list[Chunk]) -> None:
    lines = text.split("\n")
    at, seen = 0, set()
    for chunk in chunks:
        assert at < chunk.start_line <= chunk.end_line
        assert chunk.text == "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert chunk.text.strip()
        at = chunk.end_line
        seen.update(range(chunk.start_line, chunk.end_line + 1))
    assert [row for row, line in enumerate(lines, 1) if line.strip() and row not in seen] == []


PYTHON = '''import os

LIMIT = 3


# How it is done.
@cache
def read(path):
    """Read it."""
    with open(path) as file:
        rows = file.readlines()

    rows.sort()
    return rows


class Store:
    """Keeps things."""

    size = 1

    def get(self, key):
        value = self.items[key]
        if value is None:
            raise KeyError(key)

        return value

    def put(self, key, value):
        if key in self.items:
            raise KeyError(key)
        self.size += 1

        self.items[key] = value
'''


def test_a_function_keeps_its_comment_and_decorator() -> None:
    chunks = chunk_document(document(PYTHON))
    assert_whole(PYTHON, chunks)
    assert [(chunk.symbol, chunk.start_line, chunk.end_line) for chunk in chunks] == [
        ("", 1, 3), ("read", 6, 14), ("Store", 17, 34),
    ]  # fmt: skip
    assert chunks[1].text.startswith("# How it is done.\n@cache\ndef read")
    assert (chunks[1].language, chunks[1].own, chunks[1].path) == ("python", True, "a/b.py")


def test_a_large_class_goes_by_methods() -> None:
    chunks = chunk_document(document(PYTHON), max_lines=10)
    assert_whole(PYTHON, chunks)
    assert [chunk.symbol for chunk in chunks] == ["", "read", "Store", "Store.get", "Store.put"]


def test_small_neighbours_become_one_chunk() -> None:
    text = "def a():\n    return 1\n\n\ndef b():\n    return 2\n\n\ndef c():\n    return 3\n"
    assert [chunk.symbol for chunk in chunk_document(document(text))] == ["a, b, c"]


@pytest.mark.parametrize(
    ("language", "text", "symbols"),
    [
        (
            "rust",
            "/// Doc.\n#[inline]\nfn a() {\n\n}\nimpl B {\n\n\n    fn c(&self) {\n\n\n\n\n\n    }\n}\n",
            ["a", "B", "B.c"],
        ),
        ("cpp", "namespace n {\n\n\n\n\n\nint C::d(int x) {\n\n\n\n\n\n}\n}\n", ["n", "n.C::d"]),
        ("typescript", "export const f = (x: number) => {\n\n\n\n\n\n};\nexport class G {\n\n\n\n\n}\n", ["f", "G"]),
        ("go", "package p\n\nfunc (s *S) F() {\n\n\n\n\n\n}\ntype S struct {\n\n\n\n\n}\n", ["", "F", "S"]),
        ("java", "class A {\n\n\n\n\n\n  void f() {\n\n\n\n\n\n  }\n}\n", ["A", "A.f"]),
        ("ruby", "module M\n\n\n\n\n  def self.f\n\n\n\n\n\n  end\nend\n", ["M", "M.f", "M"]),
    ],
)
def test_definitions_of_other_languages(language: str, text: str, symbols: list[str]) -> None:
    chunks = chunk_document(document(text, language=language), max_lines=8)
    assert_whole(text, chunks)
    assert [chunk.symbol for chunk in chunks] == symbols


def test_markdown_goes_by_headings_outside_fences() -> None:
    text = "intro\n# One\ntext\n```\n# not a heading\n```\n\n## Two\nmore\n"
    chunks = chunk_document(document(text, language="markdown"))
    assert_whole(text, chunks)
    assert [(chunk.symbol, chunk.start_line) for chunk in chunks] == [("", 1), ("One", 2), ("Two", 8)]


def test_other_text_goes_by_windows_that_end_at_blank_lines() -> None:
    text = "\n".join("" if row == 24 else f"line {row}" for row in range(70))
    chunks = chunk_document(document(text, language="text"))
    assert_whole(text, chunks)
    assert [chunk.start_line for chunk in chunks] == [1, 26, 56]


def test_one_endless_line_is_one_chunk() -> None:
    text = "x" * 100_000 + "\n" + "y" * 100_000
    chunks = chunk_document(document(text, language="text"))
    assert_whole(text, chunks)
    assert len(chunks) == 2


def test_deep_nesting_ends() -> None:
    text = "\n".join("    " * depth + f"def f{depth}():" for depth in range(300)) + "\n" + "    " * 300 + "pass"
    assert_whole(text, chunk_document(document(text), max_lines=3))


def test_every_file_of_this_repository() -> None:
    root = Path(__file__).parents[2]
    languages = {".py": "python", ".rs": "rust", ".cpp": "cpp", ".h": "cpp", ".md": "markdown", ".toml": "toml"}
    files = [
        path
        for top in ("python", "rust", "csrc", "docs")
        for path in (root / top).rglob("*")
        if path.suffix in languages
    ]
    assert len(files) > 20
    for path in files:
        text = path.read_text()
        for max_lines in (60, 5):
            assert_whole(text, chunk_document(document(text, language=languages[path.suffix]), max_lines=max_lines))


FRAGMENTS = [
    "def f():\n",
    "    return 1\n",
    "class A:\n",
    "  def g(self): pass\n",
    "\n",
    "{",
    "}",
    "fn x() {\n",
    "# note\n",
]
FRAGMENTS += [
    "```\n",
    "# Head\n",
    "\t",
    "é中",
    "\r\n",
    "x = 1; y = 2\n",
    "@d\n",
    '"""',
    "export const f = () => {\n",
    "\x00",
    "\ud800",
]


@given(
    parts=st.lists(st.sampled_from(FRAGMENTS), max_size=60),
    language=st.sampled_from([*sorted(LANGUAGES), "markdown", "text"]),
    max_lines=st.integers(1, 12),
)
def test_no_line_is_lost_or_doubled(parts: list[str], language: str, max_lines: int) -> None:
    text = "".join(parts)
    assert_whole(text, chunk_document(document(text, language=language), max_lines=max_lines))
