"""The terminal commands against a scripted server, and their mistakes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from highrise.agent.app import build_app
from highrise.agent.config import AgentConfig
from highrise.agent.keys import KeyFile
from highrise.cli import main
from highrise.serve.http import serve_app
from tests.agent.test_agent_app import OpenIndex, speak
from tests.agent.test_tools import HIT
from tests.serve.listening import listening
from tests.serve.scripted import scripted_backend


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    app = build_app(AgentConfig(), scripted_backend(speak, max_context=8000), index=OpenIndex(HIT), root=tmp_path)  # type: ignore[arg-type]
    with listening(app) as address:
        yield address


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "new.py"
    path.write_text("def add(a, b):\n    \n\nprint(add(1, 2))\n")
    return path


def test_complete_prints(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", f"{file}:2", "--url", url]) == 0
    assert capsys.readouterr().out == "return a + b\n"
    assert main(["complete", f"{file}:2:5", "--url", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "return a + b"


def test_complete_inserts(url: str, file: Path) -> None:
    assert main(["complete", f"{file}:2:5", "--insert", "--url", url]) == 0
    assert file.read_text() == "def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n"


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("{file}", "not a place in a file"),
        ("{file}:9", "has 5 lines"),
        ("{file}:0", "line 0"),
        ("{file}:2:99", "past its end"),
        ("none.py:1", "cannot read none.py"),
    ],
)
def test_complete_names_the_mistake(file: Path, place: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", place.format(file=file)]) == 2
    assert word in capsys.readouterr().err


def test_chat_answers_with_sources_and_tools(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chat", "use a tool to find the answer function", "--tools", "--url", url]) == 0
    seen = capsys.readouterr()
    assert "It is `42`." in seen.out
    assert "sources: src/app.py:3" in seen.err
    assert "search_sources" in seen.err
    assert main(["chat", "hi", "--json", "--url", url]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "It is `42`."


def test_chat_speaks_to_a_plain_model_server(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(serve_app(scripted_backend("plain words"))) as address:
        assert main(["chat", "hi", "--url", address]) == 0
    assert capsys.readouterr().out == "plain words\n"


def test_a_conversation_goes_on(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["hi", "", "say something bad"])

    def read(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    assert main(["chat", "--url", url]) == 0
    seen = capsys.readouterr().out
    assert "It is `42`." in seen
    assert "Refused by the guardrail" in seen


def test_no_server_is_one_sentence(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["complete", f"{file}:1"], ["chat", "hi"]):
        assert main([*command, "--url", "http://127.0.0.1:9"]) == 2
        error = capsys.readouterr().err
        assert "no server answers at http://127.0.0.1:9" in error
        assert error.count("\n") == 1
    assert main(["chat", "hi", "--url", "ftp://there"]) == 2


def test_a_key_is_made_used_and_revoked(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "key", "create", "--name", "ada", "--root", str(tmp_path)]) == 0
    secret = capsys.readouterr().out.strip()
    assert KeyFile(tmp_path / ".highrise" / "keys.json").owner(secret) is not None
    key_file = tmp_path / "key"
    key_file.write_text(secret)
    app = build_app(AgentConfig(keys="always"), scripted_backend(speak), index=None, root=tmp_path)
    with listening(app) as address:
        assert main(["complete", f"{file}:2", "--url", address]) == 1
        assert "An API key is needed" in capsys.readouterr().err
        assert main(["complete", f"{file}:2", "--url", address, "--key-file", str(key_file)]) == 0
        assert main(["agent", "key", "list", "--root", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.split("\n")[-2])[0]["name"] == "ada"
        assert main(["agent", "key", "revoke", "--name", "ada", "--root", str(tmp_path)]) == 0
        assert main(["complete", f"{file}:2", "--url", address, "--key-file", str(key_file)]) == 1
    assert main(["agent", "key", "revoke", "--name", "ada", "--root", str(tmp_path)]) == 2
    assert main(["agent", "key", "create", "--root", str(tmp_path)]) == 2
    assert main(["agent", "key", "list", "--root", str(tmp_path / "none")]) == 2
