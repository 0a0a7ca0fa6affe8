"""The whole building on a small repository: build, reuse, kill and resume, serve, and every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import msgspec
import pytest

from highrise.assistant import Assistant, find, load_preset, presets, render
from highrise.core.errors import ConfigError
from highrise.core.manifest import read_manifest
from tests.encode.test_chunk import document
from tests.encode.tiny_minilm import write_tiny_minilm

STAGES = ["align", "data", "index", "tokenizer", "tokens", "weights"]


def highrise(*arguments: str, folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "highrise.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)


def write_repository(folder: Path) -> None:
    """A small repository of real code: some modules of the standard library under names of its own."""
    for module in (json, re, subprocess, socket, urllib.request, tempfile_module()):
        source = Path(str(module.__file__)).read_text("utf-8")
        name = module.__name__.replace(".", "_")
        (folder / f"{name}_code.py").write_text(source)
        for part, text in enumerate(source.split("\n\n\n")[:20]):
            try:
                compile(text, name, "exec")
            except SyntaxError:
                continue
            if len(text) > 200:
                (folder / f"{name}_{part}.py").write_text(text + "\n")


def tempfile_module() -> object:
    import tempfile

    return tempfile


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the preset `tiny` was built once."""
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder)
    finished = highrise("build", "--preset", "tiny", folder=folder)
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_valid_and_rendered_whole(name: str) -> None:
    assistant = load_preset(name)
    assert assistant.name == name
    assert "serve.port = 8080" in render(assistant)


def test_every_stage_has_its_manifest(repository: Path) -> None:
    state = repository / ".highrise" / "tiny"
    assert sorted(path.name for path in state.iterdir() if path.is_dir()) == STAGES
    for stage in STAGES:
        assert read_manifest(state / stage).stage == stage


def test_a_second_build_reuses_every_stage(repository: Path) -> None:
    finished = highrise("build", "--preset", "tiny", folder=repository)
    assert finished.returncode == 0, finished.stderr
    reused = re.findall(r"^(\w+) +reused ", finished.stderr, flags=re.MULTILINE)
    assert sorted(reused) == STAGES


def test_up_check_answers_three_questions(tmp_path: Path) -> None:
    # On weights that know something: what the preset `tiny` writes may well be nothing.
    write_repository(tmp_path)
    (tmp_path / "assistant.toml").write_text(
        'name = "real"\n[data]\nsources = ["."]\n[index]\nbudget = "0 s"\n[train]\nbase = "smollm2-135m"\n'
    )
    finished = highrise("up", "--port", "0", "--check", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    for heading in ("1. ghost text", "2. chat", "3. search"):
        assert heading in finished.stdout
    assert "\x1b" not in finished.stdout, "colour codes belong on a terminal only"


def test_a_second_up_on_the_same_folder_is_refused(repository: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-m", "highrise.cli", "up", "--preset", "tiny", "--port", "0"],
        cwd=repository,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("serving"):
                break
        second = highrise("up", "--preset", "tiny", "--port", "0", folder=repository)
        assert second.returncode == 2
        assert "another highrise is at work on .highrise/tiny" in second.stderr.splitlines()[-1]
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=30) == 0


def test_a_port_in_use_is_found_before_any_work(repository: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = highrise("up", "--preset", "tiny", "--port", str(port), folder=repository)
    assert finished.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in finished.stderr.splitlines()[-1]


def test_kernels_of_another_machine_are_found_before_any_work(tmp_path: Path) -> None:
    write_repository(tmp_path)
    (tmp_path / "assistant.toml").write_text('name = "other"\n[serve]\nkernels = "sse9"\n')
    finished = highrise("up", "--port", "0", folder=tmp_path)
    assert finished.returncode == 2
    assert 'kernels "sse9" do not run on this CPU; choose auto' in finished.stderr.splitlines()[-1]
    assert not (tmp_path / ".highrise" / "other" / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 4.0, 6.0, 8.0, 11.0])
def test_a_killed_build_resumes(tmp_path: Path, seconds: float) -> None:
    write_repository(tmp_path)
    first = subprocess.Popen(
        [sys.executable, "-m", "highrise.cli", "build", "--preset", "tiny"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    state = tmp_path / ".highrise" / "tiny"
    finished_stages = [path for path in state.glob("*") if path.is_dir() and not path.name.endswith(".partial")]
    stamps = {path.name: read_manifest(path).created for path in finished_stages}
    finished = highrise("build", "--preset", "tiny", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    for name, created in stamps.items():
        assert read_manifest(state / name).created == created, f"{name} was built twice"
    assert not list(state.glob("*.partial"))


BAD_FILES = {
    "unknown key": ('name = "x"\n[data]\nsource = ["."]', r"unknown field `source` - at `\$.data`"),
    "wrong type": ('name = "x"\n[serve]\nport = "eighty"', r"Expected `int`, got `str` - at `\$.serve.port`"),
    "contradiction": (
        'name = "x"\n[train]\nbase = "smollm2-135m"\ndepth = 4',
        r"train has both base = 'smollm2-135m' and depth = 4",
    ),
    "name of dots": ('name = ".."', r'name is "\.\."; use letters'),
    "bad name": ('name = "a/b"', r'name is "a/b"; use letters'),
    "not TOML": ("name = ", r"is not valid TOML"),
    "missing source": ('name = "x"\n[data]\nsources = ["absent"]\n[train]\ndepth = 1', r"absent"),
    "empty source": ('name = "x"\n[data]\nsources = ["empty"]\n[train]\ndepth = 1', r"empty"),
    "unknown model": ('name = "x"\n[train]\nbase = "gpt-9"', r'no model "gpt-9" in the catalogue'),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path: Path, case: str) -> None:
    text, message = BAD_FILES[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "assistant.toml").write_text(text)
    finished = highrise("build", folder=tmp_path)
    assert finished.returncode == 2, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("highrise: ") and re.search(message, last), finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_dry_run_finds_what_a_build_would_stumble_over(tmp_path: Path) -> None:
    file = tmp_path / "assistant.toml"
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    for lines, message in (
        ('[train]\nbase = "gpt-9"', 'no model "gpt-9" in the catalogue'),
        ('[train]\nbase = "minilm-l6"', "minilm-l6 is an embedder"),
        ('[train]\nbase = "cut.gguf"', "cut.gguf is not a whole GGUF file"),
        ('[index]\nembedder = "smollm2-135m"', "smollm2-135m is a decoder"),
        ('[data]\nsources = ["absent"]', 'source "absent" does not exist'),
        ('[data]\nsources = [""]', "a source has no name"),
    ):
        file.write_text(f'name = "x"\n{lines}')
        finished = highrise("build", "--dry-run", folder=tmp_path)
        assert finished.returncode == 2, (lines, finished.stderr)
        assert message in finished.stderr.splitlines()[-1]
    file.write_text('name = "x"\n[data]\nsources = ["."]\n[index]\nbudget = "0 s"\n[train]\ndepth = 1')
    assert highrise("build", "--dry-run", folder=tmp_path).returncode == 0
    assert not (tmp_path / ".highrise").exists()


def test_one_embedder_serves_the_index_and_the_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from highrise.build import Built
    from highrise.core.catalogue import locate
    from highrise.core.errors import HighriseError
    from highrise.encode.index_build import build_from_documents
    from highrise.encode.minilm import MiniLm
    from highrise.run import open_parts

    try:
        weights = locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(str(error))
    embedder = str(write_tiny_minilm(tmp_path / "minilm"))
    assistant = load_preset("tiny")
    index = msgspec.structs.replace(assistant.index, embedder=embedder, budget="5 s")
    assistant = msgspec.structs.replace(assistant, index=index)
    build_from_documents(index, [document("def add(a, b):\n    return a + b\n", path="a.py")], tmp_path / "index")
    opened: list[Path] = []
    load = MiniLm.load
    monkeypatch.setattr(MiniLm, "load", lambda folder, **options: opened.append(folder) or load(folder, **options))
    built = Built(weights=weights, adapter=None, index=tmp_path / "index", embedder=embedder)
    backend, found, _ = open_parts(assistant, built)
    try:
        assert found is not None and found.search("add")
        assert backend.embedder is not None and backend.embedder.embed(["add"]).shape == (1, 48)
        assert len(opened) == 1
    finally:
        backend.runner.close()


def test_a_truncated_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "code.py").write_text("def f(x):\n    return x + 1\n")
    (tmp_path / "assistant.toml").write_text('name = "x"\n[data]\nsources = ["."]\n[train]\nbase = "cut.gguf"')
    finished = highrise("up", "--port", "0", folder=tmp_path)
    assert finished.returncode == 2, finished.stderr
    assert "cut.gguf is not a whole GGUF file" in finished.stderr.splitlines()[-1]


def test_a_file_beats_the_preset_and_both_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assistant.toml").write_text('name = "ours"')
    assistant, root, origin = find(None, None)
    assert isinstance(assistant, Assistant) and assistant.name == "ours"
    assert root == tmp_path and origin == "assistant.toml"
    assert find(None, "small")[0].name == "small"
    with pytest.raises(ConfigError, match="give one"):
        find("assistant.toml", "small")


@pytest.mark.slow
def test_weights_that_exist_are_trained_further_when_tokens_are_given(tmp_path: Path) -> None:
    write_repository(tmp_path)
    (tmp_path / "assistant.toml").write_text(
        'name = "more"\n[data]\nsources = ["."]\n[index]\nbudget = "0 s"\n'
        '[train]\nbase = "smollm2-135m"\ntokens = 2048\nbatch_tokens = 1024\nmicro_batch = 1\nlearning_rate = 1e-5\n'
    )
    finished = highrise("build", folder=tmp_path)
    assert finished.returncode == 0, finished.stderr
    weights = tmp_path / ".highrise" / "more" / "weights"
    assert read_manifest(weights).counts["tokens"] == 2048
    assert (weights / "model.safetensors").exists()
