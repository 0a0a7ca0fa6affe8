"""The command line itself: what it leaves with when the words, the pipe or the disk are bad."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from highrise.cli import main


def test_an_argument_that_is_not_utf8_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "folder\udcff"]) == 2
    assert capsys.readouterr().err == (
        'highrise: the argument "folder\\xff" is not UTF-8; rename the file, or write it in UTF-8\n'
    )


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
