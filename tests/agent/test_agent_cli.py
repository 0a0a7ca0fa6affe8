"""The terminal commands against a scripted server, and their mistakes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from highrise.agent.app import build_app
from highrise.agent.client import Client
from highrise.agent.config import AgentConfig
from highrise.agent.keys import KeyFile, admit
from highrise.cli import main
from highrise.core.errors import InputError
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


def test_insert_keeps_mode_and_link(url: str, file: Path, tmp_path: Path) -> None:
    file.chmod(0o750)
    link = tmp_path / "link.py"
    link.symlink_to(file)
    assert main(["complete", f"{link}:2:5", "--insert", "--url", url]) == 0
    assert link.is_symlink() and "return a + b" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o750


def test_insert_leaves_a_file_alone_that_was_saved_meanwhile(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def save_and_speak(*arguments: object, **options: object) -> object:
        file.write_text("my own edit\n")
        return speak(*arguments, **options)  # type: ignore[arg-type]

    app = build_app(AgentConfig(), scripted_backend(save_and_speak, max_context=8000), index=None, root=tmp_path)  # type: ignore[arg-type]
    with listening(app) as address:
        assert main(["complete", f"{file}:2:5", "--insert", "--url", address]) == 2
    assert file.read_text() == "my own edit\n"
    assert "was changed while" in capsys.readouterr().err


@pytest.mark.parametrize("odd", ["\f", "\v", "\x1c", "\u2028", "\x85"])
def test_lines_are_counted_as_editors_do(url: str, tmp_path: Path, odd: str) -> None:
    path = tmp_path / "page.py"
    path.write_bytes(f"# one{odd}still one\r\ndef add(a, b):\r\n    \r\n\r\nprint(add(1, 2))\r\n".encode())
    assert main(["complete", f"{path}:3", "--insert", "--url", url]) == 0
    assert path.read_bytes().split(b"\r\n")[2] == b"    return a + b"


@pytest.mark.parametrize(
    ("address", "secret", "word"),
    [
        ("http://[::1", "k", "is not the address of a server"),
        ("http://a..b", "k", "no server answers at http://a..b"),
        ("http://127.0.0.1:9", "one\ntwo", "does not hold one key"),
        ("http://127.0.0.1:9", "cl\u00e9", "does not hold one key"),
        ("http://127.0.0.1:9", "", "does not hold one key"),
    ],
)
def test_odd_addresses_and_keys_are_one_sentence(
    file: Path, tmp_path: Path, address: str, secret: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(secret)
    assert main(["complete", f"{file}:1", "--url", address, "--key-file", str(tmp_path / "key")]) == 2
    error = capsys.readouterr().err
    assert word in error and error.count("\n") == 1


def test_what_the_server_calls_wrong_is_bad_usage(url: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complete", f"{file}:2", "--max-tokens", "-1", "--url", url]) == 2
    assert "max_tokens" in capsys.readouterr().err


def test_the_path_of_an_address_is_kept(file: Path) -> None:
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": [{"text": "pass"}]}')

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for end in ("", "/", "/v1", "/team/", "/team/v1"):
            assert main(["complete", f"{file}:2", "--url", f"http://127.0.0.1:{server.server_port}{end}"]) == 0
        server.shutdown()
    assert seen == ["/v1/completions"] * 3 + ["/team/v1/completions"] * 2


def test_what_a_model_says_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(serve_app(scripted_backend("a\x1b]0;owned\x07b\tc\n\x9b2J"))) as address:
        assert main(["chat", "hi", "--url", address]) == 0
    assert capsys.readouterr().out == "a\ufffd]0;owned\ufffdb\tc\n\ufffd2J\n"


def test_a_conversation_outlives_its_server_and_bad_bytes_end_it(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    events = Client.events

    def flaky(self: Client, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        asked.append([message["content"] for message in body["messages"]])
        if len(asked) == 1:
            raise InputError("no server answers")
        if len(asked) == 2:
            raise KeyboardInterrupt
        return events(self, path, body)

    lines = iter(["lost", "stopped", "hi"])
    assert main(["agent", "serve", "smollm2-135m", "--port", "99999"]) == 2
    assert "port is 99999" in capsys.readouterr().err

    def read(_: str) -> str:
        for line in lines:
            return line
        return b"\xff".decode()

    monkeypatch.setattr(Client, "events", flaky)
    monkeypatch.setattr("builtins.input", read)
    assert main(["chat", "--url", url]) == 2
    assert asked == [["lost"], ["stopped"], ["hi"]]
    seen = capsys.readouterr()
    assert "It is `42`." in seen.out and "not UTF-8" in seen.err


@pytest.mark.parametrize("headers", [{"origin": "http://["}, {"host": "[::1"}, {"origin": "null", "host": "["}])
def test_an_address_that_is_none_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    refused = admit({"host": "localhost", **headers}, "127.0.0.1", KeyFile(tmp_path / "keys.json"), "auto")
    assert refused is not None and refused.status == 403


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
