"""The three tools and the gate before them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from highrise.agent.config import AgentConfig
from highrise.agent.sandbox import Sandbox, SandboxError
from highrise.agent.tools import Toolbox, ToolResult


class Hit(msgspec.Struct):
    path: str
    source: str
    start_line: int
    end_line: int
    text: str
    score: float
    language: str


class ScriptedIndex:
    def __init__(self, *hits: Hit) -> None:
        self.hits = list(hits)
        self.asked: list[str] = []

    def search(self, query: str, *, limit: int = 10, languages: Any = None) -> list[Hit]:
        self.asked.append(query)
        return self.hits[:limit]


HIT = Hit("src/app.py", "repo", 3, 5, "def answer():\n    return 42\n", 0.9, "python")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repo"
    (root / "src").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("secret")
    for secret in (".env", ".env.production", "server.pem", "credentials"):
        (root / secret).write_text("KEY=1")
    (root / "src" / "app.py").write_text("import os\n\n\ndef answer():\n    return 42\n")
    (root / "bad.py").write_text("def f(:\n")
    (root / "blob").write_bytes(b"\0\1")
    (tmp_path / "outside.txt").write_text("outside")
    (root / "link").symlink_to(tmp_path / "outside.txt")
    (root / "folder_link").symlink_to(tmp_path)
    (root / "inner_link").symlink_to(root / "src" / "app.py")
    (root / "git_link").symlink_to(root / ".git")
    return root


@pytest.fixture
def box(root: Path) -> Toolbox:
    return Toolbox.of(AgentConfig(), root=root, index=ScriptedIndex(HIT))  # type: ignore[arg-type]


def call(box: Toolbox, name: str, **arguments: object) -> ToolResult:
    return asyncio.run(box.call(name, json.dumps(arguments)))


def test_search(box: Toolbox) -> None:
    result = call(box, "search_sources", query="answer")
    assert result.ok
    assert result.text.startswith("src/app.py:3-5\ndef answer")
    assert result.data["hits"][0]["start_line"] == 3


def test_read(box: Toolbox) -> None:
    assert "    4  def answer():" in call(box, "read_file", path="src/app.py").text
    part = call(box, "read_file", path="src/app.py", start_line=4, end_line="4")
    assert part.text.startswith("    4  def answer():")
    assert "1 more lines" in part.text
    assert "return 42" in call(box, "read_file", path="inner_link").text


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "link",
        "folder_link/outside.txt",
        "/etc/passwd",
        ".git/config",
        "git_link/config",
        ".env",
        ".env.production",
        "server.pem",
        "credentials",
        "src/../.env",
    ],
)
def test_nothing_outside_or_secret_is_read(box: Toolbox, path: str) -> None:
    result = call(box, "read_file", path=path)
    assert not result.ok
    assert "outside of the repository" in result.text or "is closed" in result.text


@pytest.mark.parametrize(
    ("path", "word"),
    [("none.py", "no file"), ("src", "folder"), ("blob", "not a text"), ("a\0b", "no file"), ("fifo", "empty")],
)
def test_what_cannot_be_read_is_a_sentence(box: Toolbox, root: Path, path: str, word: str) -> None:
    os.mkfifo(root / "fifo")  # must not block
    result = call(box, "read_file", path=path)
    assert word in result.text


def test_the_gate_checks_arguments(box: Toolbox) -> None:
    assert "no tool 'rm'" in call(box, "rm").text
    assert "'query' is missing" in call(box, "search_sources").text
    assert "no argument 'x'" in call(box, "search_sources", query="a", x=1).text
    assert "must be of type string" in call(box, "read_file", path=3).text
    assert "not valid JSON" in asyncio.run(box.call("read_file", "{")).text
    assert "JSON object" in asyncio.run(box.call("read_file", "[1]")).text


def test_output_is_screened_and_cut(root: Path) -> None:
    hit = msgspec.structs.replace(HIT, text="x" * 20_000 + "secret")
    box = Toolbox.of(
        AgentConfig(),
        root=root,
        index=ScriptedIndex(hit),
        screen=lambda text: text.replace("x", "y"),  # type: ignore[arg-type]
    )
    text = call(box, "search_sources", query="a").text
    assert "more characters are left out" in text
    assert "x" not in text.replace("left out", "").split("\n")[1]


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "bash -c 'ruff check'",
        "ruff check; rm x",
        "pytest | tee out",
        "python -c 'print(1)'",
        "python script.py",
        "/usr/bin/env ruff",
        "curl localhost",
        "git push",
        "cargo publish",
        "pytest $(id)",
        "",
        "'",
    ],
)
def test_other_commands_are_refused(box: Toolbox, command: str) -> None:
    result = call(box, "run_command", command=command)
    assert not result.ok
    assert "exit code" not in result.text


def test_linter_alone_runs_no_tests(root: Path) -> None:
    box = Toolbox.of(AgentConfig(tools=("linter",)), root=root, index=None)
    assert box.names == ["run_command"]
    assert "may not be run" in call(box, "run_command", command="pytest").text


def test_a_command_runs_shut_in(root: Path, box: Toolbox) -> None:
    try:
        Sandbox(root).kind()
    except SandboxError as error:
        pytest.skip(str(error))
    good = call(box, "run_command", command="python -m py_compile src/app.py")
    assert good.ok, good.text
    assert good.text.startswith("exit code 0")
    bad = call(box, "run_command", command="python -m py_compile bad.py")
    assert not bad.ok
    assert "SyntaxError" in bad.text


def test_no_sandbox_no_command(root: Path) -> None:
    box = Toolbox.of(AgentConfig(sandbox="off"), root=root, index=None)
    result = call(box, "run_command", command="ruff check")
    assert not result.ok
    assert "was not run" in result.text


def test_no_index_no_search(root: Path) -> None:
    assert Toolbox.of(AgentConfig(), root=root, index=None).names == ["read_file", "run_command"]
    assert Toolbox.of(AgentConfig(tools=()), root=root, index=None).names == []


def test_descriptions_reach_the_wire(box: Toolbox) -> None:
    wire = box.wire()
    assert [tool.function.name for tool in wire] == ["search_sources", "read_file", "run_command"]
    assert SimpleNamespace(**wire[0].function.parameters).required == ["query"]  # type: ignore[arg-type]
    assert sys.executable
