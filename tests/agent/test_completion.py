"""Ghost text is cut as the golden cases say (tests/golden/ghost_text.json, where `|` marks the cursor)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.agent.completion import Cleaner, clean

GOLDEN = Path(__file__).parents[1] / "golden" / "ghost_text.json"
CASES = [(case["name"], case["file"], case["said"], case["shown"]) for case in json.loads(GOLDEN.read_bytes())]


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
