"""The command line itself: what it leaves with when the words, the pipe or the disk are bad."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from highrise.cli import main
from highrise.core.safetensors import write_safetensors


def test_an_argument_that_is_not_utf8_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "folder\udcff"]) == 2
    assert capsys.readouterr().err == (
        'highrise: the argument "folder\\xff" is not UTF-8; rename the file, or write it in UTF-8\n'
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("serve smollm2-135m --port many", "highrise serve: argument --port: invalid int value: 'many'"),
        ("data dedup", "highrise data dedup: the following arguments are required: IN, OUT"),
        ("data nothing", "highrise data: argument VERB: invalid choice: 'nothing' (choose from"),
        ("complete --nothing", "highrise complete: the following arguments are required: FILE:LINE"),
    ],
)
def test_words_that_are_not_understood_are_one_sentence(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.endswith(" --help\n") and error.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_behind_stdout_is_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "highrise.cli", "models"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr.decode() == "highrise: the system refused: No space left on device\n"


def test_a_closed_pipe_is_silent() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "highrise.cli", "models"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 141


def test_a_path_below_a_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("text to train on " * 20)
    words = [
        "encode",
        "train",
        str(tmp_path / "file"),
        "--vocabulary",
        "300",
        "--out",
        str(tmp_path / "file" / "below"),
    ]
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("highrise: ") and "Not a directory" in error


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A Hugging Face folder with the description of a small decoder and one whole tensor."""
    folder = tmp_path / "model"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "vocab_size": 64,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {"model.embed_tokens.weight": np.ones((64, 16), np.float32)}
    write_safetensors(folder / "model.safetensors", tensors, metadata={})
    return folder


@pytest.mark.parametrize("keep", [0, 4, 40, 200, -1])
@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["build", "--dry-run"]], ids=["serve", "build"])
def test_truncated_safetensors_are_one_sentence(
    model_folder: Path,
    keep: int,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    monkeypatch.chdir(tmp_path)
    if command[0] == "serve":
        words = [command[0], str(model_folder), *command[1:]]
    else:
        (tmp_path / "assistant.toml").write_text(
            f'name = "x"\n[data]\nsources = ["."]\n[train]\nbase = "{model_folder}"'
        )
        words = command
    assert main(words) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("highrise: ") and "model.safetensors" in last, last


AS_A_USER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: to root every file is readable
    if os.getuid() == 0 and libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP, in force from the next exec
        sys.exit(77)
os.execv(sys.executable, [sys.executable, "-m", "highrise.cli", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    "words",
    [
        ["serve", "locked.gguf", "--port", "0"],
        ["serve", "locked", "--port", "0"],
        ["compute", "plan", "--model", "locked.gguf"],
        ["data", "build", "locked", "--out", "out"],
        ["encode", "index", "locked", "out"],
        ["build", "locked.toml"],
        ["complete", "locked.gguf:1"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_what_a_user_may_not_read_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    for name in ("locked.gguf", "locked.toml"):
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "locked").mkdir()
    for path in (tmp_path / "locked.gguf", tmp_path / "locked.toml", tmp_path / "locked"):
        path.chmod(0)
    command = [sys.executable, "-c", AS_A_USER, *words]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if ran.returncode == 77:
        pytest.skip("to this user every file is readable, and it may not give that up")
    last = ran.stderr.splitlines()[-1]
    assert ran.returncode == 2, ran.stderr
    assert last.startswith("highrise: ") and "locked" in last, ran.stderr
    assert "ermission denied" in last, ran.stderr
    assert "Traceback" not in ran.stderr
