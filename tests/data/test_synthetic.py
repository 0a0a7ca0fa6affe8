"""Synthetic records: from a scripted server what is kept, refused and counted; from our own server that it works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from highrise.cli import main
from highrise.core.catalogue import locate
from highrise.core.errors import ConfigError, DataError, InputError
from highrise.data.adapters import openai
from highrise.data.adapters.openai import OpenAITeacher
from highrise.data.build import build_data
from highrise.data.config import DataConfig
from highrise.data.shards import read_documents
from highrise.data.synthetic import Answer, SyntheticConfig, synthesise
from tests.data.conftest import MakeRepository
from tests.serve.listening import served

FUNCTION = '''def double_{n}(value):
    """The value, twice as large, of part {n} of the whole."""
    first = value * 2
    second_{n} = first + {n} - {n}
    return second_{n}
'''


@pytest.fixture
def folder(make_repository: MakeRepository, tmp_path: Path) -> Path:
    source = make_repository("team", {f"m{n}.py": f"import os\n\n\n{FUNCTION.format(n=n)}" for n in range(12)})
    build_data(DataConfig(sources=(str(source),), near_duplicate=0, validation=0), tmp_path / "data", workers=0)
    return tmp_path / "data"


class Scripted(ThreadingHTTPServer):
    """Answers as the number of the function says; every third request gets a 503 first."""

    daemon_threads = True

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.busy = False
        self.delay = 0.0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.busy = not self.server.busy
        if self.server.busy:
            self.send_error(503)
            return
        if body["model"] == "unknown":
            self.send_error(404, "there is no such model")
            return
        prompt = body["messages"][0]["content"]
        self.server.prompts.append(prompt)
        time.sleep(self.server.delay)
        text, reason = answer(prompt)
        data = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": reason}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def answer(prompt: str) -> tuple[str, str]:
    number = int(re.findall(r"double_(\d+)", prompt)[0])
    code = f"Sure!\n```python\ndef double_{number}(value):\n    return value + value\n```\nThat is all."
    if prompt.startswith("Write"):
        special = {
            0: ("I'm sorry, but I cannot do that.", "stop"),
            1: ("", "stop"),
            2: (code[:40], "length"),
            3: ("```python\ndef double_3(:\n```", "stop"),
            4: ("```python\ndef other():\n    return 1\n```", "stop"),
            5: ("```python\ndef double_5(value):\n    '''Twice.'''\n    pass\n```", "stop"),
            6: (f"```python\n{FUNCTION.format(n=6)}```", "stop"),
        }
        return special.get(number, (code, "stop"))
    return {7: ("Nice function.", "stop"), 8: ("What does double_8 do?", "stop")}.get(
        number, (f"How do I get twice a value in part {number}?", "stop")
    )


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(openai, "_PAUSES", (0.01,) * 6)
    with Scripted() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_records_are_kept_or_counted(folder: Path, tmp_path: Path, server: Scripted) -> None:
    manifest, reused = synthesise(folder, tmp_path / "s", SyntheticConfig(), OpenAITeacher(server.url, "m"))
    assert not reused
    assert manifest.counts == {
        "asked": 24, "records": 15, "kind: code": 5, "kind: question": 10, "dropped: refused": 1, "dropped: empty": 1,
        "dropped: cut off": 1, "dropped: does not parse": 1, "dropped: another function": 1, "dropped: no body": 1,
        "dropped: a copy": 1, "dropped: no question": 1, "dropped: names the function": 1,
    }  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "s" / "synthetic.jsonl").read_text().splitlines()]
    assert len(records) == 15 and {record["teacher"] for record in records} == {"m"}
    code = next(record for record in records if record["kind"] == "code")
    assert code["text"].startswith("def double_") and "return value + value" in code["messages"][1]["content"]
    asked = len(server.prompts)
    assert synthesise(folder, tmp_path / "s", SyntheticConfig(), OpenAITeacher(server.url, "m"))[1]
    assert len(server.prompts) == asked == 24
    again = synthesise(folder, tmp_path / "t", SyntheticConfig(), OpenAITeacher(server.url, "m"), concurrency=1)
    assert again[0].counts == manifest.counts
    both = [(tmp_path / name / "synthetic.jsonl").read_bytes() for name in "st"]
    assert both[0] == both[1]


def test_records_are_a_source_of_a_build(folder: Path, tmp_path: Path, server: Scripted) -> None:
    config = SyntheticConfig(kinds=("question",), count=6)
    synthesise(folder, tmp_path / "s", config, OpenAITeacher(server.url, "m"))
    source = str(tmp_path / "s" / "synthetic.jsonl")
    build_data(DataConfig(sources=(source,), near_duplicate=0, validation=0), tmp_path / "built", workers=0)
    documents = list(read_documents(tmp_path / "built"))
    assert len(documents) >= 4
    assert all("?" in document.text and "```python" in document.text for document in documents)
    assert {document.repository for document in documents} == {"team"}


KILLED = """
import sys
from highrise.cli import main
sys.exit(main(["data", "synthesise", *sys.argv[1:]]))
"""


def test_a_killed_run_asks_no_question_twice(folder: Path, tmp_path: Path, server: Scripted) -> None:
    synthesise(folder, tmp_path / "whole", SyntheticConfig(), OpenAITeacher(server.url, "m"))
    server.prompts.clear()
    server.delay = 0.1
    arguments = [str(folder), str(tmp_path / "s"), "--url", server.url, "--model", "m", "--concurrency", "1"]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(server.prompts) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    journal = tmp_path / "s.partial" / "journal.jsonl"
    known = journal.read_bytes().count(b"\n")
    with journal.open("ab") as file:
        file.write(b'{"key": "torn')
    assert known >= 1 and not (tmp_path / "s").exists()
    server.prompts.clear()
    server.delay = 0.0
    assert main(["data", "synthesise", *arguments]) == 0
    assert len(server.prompts) == 24 - known
    assert (tmp_path / "s" / "synthetic.jsonl").read_bytes() == (tmp_path / "whole" / "synthetic.jsonl").read_bytes()


def test_a_teacher_can_come_from_above(folder: Path, tmp_path: Path) -> None:
    class Echo:
        name = "echo"

        def ask(self, prompt: str, *, max_tokens: int, temperature: float, seed: int) -> Answer:
            return Answer(*answer(prompt))

    assert synthesise(folder, tmp_path / "s", SyntheticConfig(), Echo())[0].counts["records"] == 15


def test_what_cannot_be_asked_is_one_sentence(
    folder: Path, tmp_path: Path, server: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match="refused the request with 404"):
        synthesise(folder, tmp_path / "s", SyntheticConfig(), OpenAITeacher(server.url, "unknown"))
    with pytest.raises(DataError, match=r"gave no answer .*Answers so far are kept"):
        synthesise(folder, tmp_path / "s", SyntheticConfig(), OpenAITeacher("http://127.0.0.1:9/v1", "m"))
    with pytest.raises(ConfigError, match="count is 0"):
        SyntheticConfig(count=0)
    with pytest.raises(InputError, match="the address"):
        OpenAITeacher("127.0.0.1:8080", "m")
    assert main(["data", "synthesise", str(tmp_path), str(tmp_path / "x"), "--model", "m"]) == 2
    assert main(["data", "synthesise", str(folder), str(tmp_path / "x"), "--model", "m", "--key-file", "none"]) == 2
    assert "--key-file none cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_our_own_server_writes_records(folder: Path, tmp_path: Path) -> None:
    """The smallest chat model of the catalogue is no good author, but it answers, and answers are judged."""
    model = "smollm2-135m"
    try:
        locate(model)
    except InputError as error:
        pytest.skip(str(error))
    with served(model, "--threads", "1") as (url, _):
        config = SyntheticConfig(kinds=("question",), count=6, max_tokens=60)
        found = synthesise(folder, tmp_path / "s", config, OpenAITeacher(f"{url}/v1", model), concurrency=2)
    counts = found[0].counts
    dropped = sum(int(count) for name, count in counts.items() if name.startswith("dropped: "))
    assert counts["asked"] == 6 == int(counts["records"]) + dropped and int(counts["records"]) >= 1
