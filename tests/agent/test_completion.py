"""Golden cases of ghost text: what the model said, what is shown. `|` marks the cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.agent.completion import Cleaner, clean

CASES = [
    # (name, file with the cursor, what the model said, what is shown)
    ("plain", "def add(a, b):\n    |\n", "return a + b", "return a + b"),
    ("blank", "x = |\n", "   \n\n", ""),
    ("trailing newline", "x = |\n", "1\n", "1"),
    ("special token", "x = |\n", "1<|endoftext|>import os", "1"),
    ("special token of another family", "x = |\n", "1 <fim_prefix>junk", "1"),
    ("fence", "def f():\n    |\n", "```python\nreturn 1\n```\nThis returns 1.", "return 1"),
    ("next line below", "a = 1\n|\nprint(a)\n", "b = 2\nprint(a)\nprint(b)", "b = 2"),
    ("equal to the next line", "a = 1\n|\nprint(a)\n", "print(a)", ""),
    ("equal to the next two lines", "a = 1\n|\nprint(a)\nprint(b)\n", "print(a)\nprint(b)", ""),
    ("the line above again", "total = total + value\n|\n", "total = total + value", ""),
    ("auto-closed bracket", "print(|)\n", "a, b)", "a, b"),
    ("auto-closed bracket and more", "foo(bar(|))\n", "1))", "1"),
    ("quote closed already", 'name = "|"\n', 'Ada"', "Ada"),
    ("rest of the line", "return |value\n", "value", ""),
    ("unmatched bracket", "x = |\n", "1)\ny = 2", "1"),
    ("bracket opened before", "print(add(|\n", "1, 2))", "1, 2))"),
    ("bracket in a string", "x = |\n", '")"', '")"'),
    ("leaves the block", "def f():\n    |\n", "return 1\n\ndef g():\n    return 2", "return 1"),
    (
        "stays in the block",
        "def f():\n    |\n",
        "if x:\n        return 1\n    return 2",
        "if x:\n        return 1\n    return 2",
    ),
    ("closing line belongs to the block", "f(\n    |\n", "a,\n    b,\n)", "a,\n    b,\n)"),
    ("closing line stands below", "f(\n    |\n)\n", "a,\n    b,\n)", "a,\n    b,"),
    ("third repeat", "x = 1\n|\n", "a()\na()\na()\na()", "a()"),
    ("block repeated", "|\n", "a()\nb()\na()\nb()\na()\nb()\nc()", "a()\nb()"),
    ("token loop", "x = |\n", "1 1 1 1 1 1 1 1 1 1 1 1", ""),
    ("phrase loop", "# |\n", "the quick fox " * 12, ""),
    ("crlf", "a = 1\r\n|\r\n", "b = 2\nc = 3", "b = 2\r\nc = 3"),
    ("tabs", "func f() {\n\tx := 1\n\t|\n}\n", "if x > 0 {\n        return\n    }", "if x > 0 {\n\t\treturn\n\t}"),
    ("a short closing line inside", "a {\n  |\n}\nb\n", "c {\n  }\n  d", "c {\n  }\n  d"),
    ("top level goes on", "import os\n|\n", "import sys\n\nprint(sys.path)", "import sys\n\nprint(sys.path)"),
]


def _split(text: str) -> tuple[str, str]:
    prefix, _, suffix = text.partition("|")
    return prefix, suffix


@pytest.mark.parametrize(("file", "said", "shown"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_golden(file: str, said: str, shown: str) -> None:
    prefix, suffix = _split(file)
    assert clean(said, prefix=prefix, suffix=suffix) == shown


def test_path_comment_is_left_out() -> None:
    assert clean("# src/a.py\nimport os", prefix="", suffix="", path="src/a.py") == "import os"
    assert clean("# other\nimport os", prefix="", suffix="", path="src/a.py") == "# other\nimport os"


@pytest.mark.parametrize(("file", "said", "shown"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_stream_shows_what_the_whole_shows(
    request: pytest.FixtureRequest, file: str, said: str, shown: str, size: int
) -> None:
    prefix, suffix = _split(file)
    cleaner = Cleaner(prefix=prefix, suffix=suffix)
    seen = ""
    for start in range(0, len(said), size):
        seen += cleaner.push(said[start : start + size])
        if cleaner.ended:
            break
    else:
        seen += cleaner.finish()
    if "repeat" in request.node.callspec.id:  # what was shown before the third time cannot be unsaid
        assert seen.startswith(shown)
        assert len(seen) < len(said)
    else:
        assert seen.rstrip() == shown


def test_a_stream_ends_early() -> None:
    cleaner = Cleaner(prefix="def f():\n    ", suffix="\n")
    assert cleaner.push("return 1\n") == "return 1"
    assert not cleaner.ended
    cleaner.push("\ndef g():\n")
    assert cleaner.ended


@given(st.text(max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_survived_and_nothing_is_made_up(said: str, prefix: str, suffix: str) -> None:
    shown = clean(said, prefix=prefix, suffix=suffix)
    plain = shown.replace("\r", "").replace("\t", "").replace(" ", "")
    assert plain in said.replace("\r", "").replace("\t", "").replace(" ", "")
