"""The native recogniser of Python beside the interpreter's parser: what it accepts parses, and it accepts what people
write.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import textwrap
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.native import rust
from highrise.data.config import CleaningConfig
from highrise.data.syntax import error_share, is_broken
from tests.data.conftest import module

STDLIB = Path(sysconfig.get_paths()["stdlib"])
PIECES = [
    *"()[]{}:,;=.*@~+-%#\\'\"`?!$\n\t ",
    *("if ", "else ", " in ", "not ", "lambda ", "yield ", "await ", "async ", "def ", "class ", "for ", "import "),
    *("return ", "with ", " as ", "from ", "try:", "except", "finally:", "is ", "and ", "print ", "global "),
    *("**", "//", "->", ":=", "!=", "<>", "...", "0x", "08", "1e", "10L", "'''", '"""', "f'{", "}'", "rb'", "ur'"),
    *("\n    ", "\n\t", "\n\n", "    ", "\x0c", "é", "\0", "\\\n", "x", "1", "{x!r:>{y}}", "{{", "}}"),
]


def parses(text: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True


def held(text: str) -> None:
    """What is accepted parses, or has at least no error of tree-sitter's, which is what `broken` asks for."""
    if rust.data.python_parses(text):
        assert parses(text) or error_share("python", text) == 0, text


def samples() -> list[str]:
    names = ("dataclasses", "typing", "argparse", "asyncio/tasks", "ast", "inspect", "statistics", "contextlib", "enum")
    return [(STDLIB / f"{name}.py").read_text("utf-8") for name in names if (STDLIB / f"{name}.py").is_file()]


def mutated(text: str, generator: random.Random) -> str:
    """A stretch of `text` with some pieces put in, taken out or moved."""
    lines = text.split("\n")
    first = generator.randrange(len(lines))
    body = textwrap.dedent("\n".join(lines[first : first + generator.randint(1, 40)])) + "\n"
    for _ in range(generator.randint(0, 4)):
        at = generator.randrange(len(body) + 1)
        kind = generator.randrange(4)
        if kind == 0:
            body = body[:at] + generator.choice(PIECES) + body[at:]
        elif kind == 1:
            body = body[:at] + body[at + generator.randint(1, 4) :]
        elif kind == 2:
            body = body[:at] + generator.choice(PIECES) + body[at + generator.randint(1, 9) :]
        else:
            end = generator.randrange(len(body) + 1)
            body = body[:at] + body[end : end + 20] + body[at:]
    return body


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.sampled_from(["a", "b.c", "f(x)", "1"])), max_size=12))
def test_what_is_accepted_parses(pieces: list[str]) -> None:
    held("".join(pieces))
    held(f"def f(a):\n    return {''.join(pieces)}\n")


@given(
    st.sampled_from(["x", " x", "x=", "*x", "*x, y", "x, y", "yield", "yield x", "not x", "x != y", "x != ", "x[1:2]"])
    | st.sampled_from(["lambda x: 1", "(lambda x: 1)", "x, lambda y: 1", "(x := 1)", "x := 1", " {1: 2}", "{1: 2}", ""])
    | st.sampled_from(["x\\\n", "x\n", "x #", "'a'", "x['a']", "'\\n'", "await x", "x if y else z", "x for x in y"]),
    st.sampled_from(["", "!r", "!s", "!a", "!z", "!rr", "! r", "!r ", "!", "!R", "!1", "!r!r", "!r=", "!é"]),
    st.sampled_from(["", ":", ":>10", ":{y}", ":{y!r}", ":{y!z}", ":{y:{z}}", ":{y:{z:{w}}}", ":}}", ":{{", ":{"]),
)
def test_fields_of_formatted_strings(expression: str, conversion: str, format: str) -> None:
    """Held to the interpreter alone: tree-sitter takes any letters for a conversion, and a bare `lambda`."""
    for quote in ('"', "'''"):
        text = f"f{quote}{{{expression}{conversion}{format}}}{quote}\n"
        assert parses(text) or not rust.data.python_parses(text), text
    assert rust.data.python_parses('f"{x!s}{x!r:>10}{x!a:{y!r}}"\n')


@pytest.mark.parametrize("rounds", [2_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_mutated_modules_are_accepted_only_where_they_parse(rounds: int) -> None:
    generator = random.Random(1 if rounds < 10_000 else None)  # the long run looks for new ones
    texts = samples()
    accepted = 0
    for _ in range(rounds):
        text = mutated(generator.choice(texts), generator)
        held(text)
        accepted += rust.data.python_parses(text)
    assert accepted > rounds / 20


def test_the_standard_library_is_accepted() -> None:
    """What the recogniser leaves to the interpreter is rare: names beyond ASCII, `match`, odd escapes of lines."""
    texts = [path.read_text("utf-8", "replace") for path in sorted(STDLIB.glob("*.py"))]
    texts = [text for text in texts if parses(text)]
    assert sum(map(rust.data.python_parses, texts)) >= 0.95 * len(texts)


def test_the_fate_of_a_file_does_not_depend_on_the_recogniser() -> None:
    config = CleaningConfig()
    for text in ("match x:\n    case [1, *_] if y: pass\n", "é = 1\n", "x = 1 if a else\\\n    2\n"):
        assert not rust.data.python_parses(text) or parses(text)
        assert is_broken("python", text, config) is None
    assert is_broken("python", module(1), config) is None
    assert is_broken("python", "def f(:\n", config) is not None
    assert is_broken("python", "(" * 100_000, config) is not None
