"""The commands as a user types them: output, JSON, exit codes, and one sentence for every mistake."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.cli import main
from highrise.compute.jobs import Job
from highrise.compute.launch import find_launcher, launcher_names
from highrise.core.errors import InputError

HIGHRISE = [sys.executable, "-m", "highrise.cli"]


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HIGHRISE, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_machine_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", "machine", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)
    assert machine["cores"] >= 1 and machine["bandwidth"] is None


def test_machine_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", "machine"]) == 0
    assert "instruction sets" in capsys.readouterr().out


def test_plan_json(capsys: pytest.CaptureFixture[str]) -> None:
    line = "compute plan --model qwen2.5-coder-0.5b --device h100 --tokens 1e12 --gpus 64 --price 2.5 --json"
    assert main(line.split()) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 494_032_768
    assert plan["kv_bytes_per_token"] == 12_288
    assert plan["money"] == pytest.approx(6 * 494_032_768 * 1e12 / (989e12 * 0.4) / 3600 * 2.5)


def test_plan_from_dimensions(capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "compute plan --layers 32 --hidden 4096 --heads 32 --kv-heads 8 --intermediate 14336 --vocabulary 128256 "
        "--device a100 --gpus 8"
    )
    assert main(line.split()) == 0
    assert "8,030,261,248 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plan --model nothing --device h100", "neither a known model"),
        ("plan --model llama-3-8b --device h900", "no device 'h900'"),
        ("plan --device h100", "--layers"),
        ("plan --device h100 --layers 2", "--hidden"),
        ("plan --device h100 --layers 2 --model llama-3-8b", "contradict"),
        ("plan --model llama-3-8b --device h100 --gpus 0", "from 1 to"),
        (f"plan --model llama-3-8b --device h100 --gpus {10**26} --tokens 1e12", "from 1 to 1,000,000"),
        ("plan --layers 2 --hidden 64 --heads 0 --intermediate 10 --vocabulary 10", "--heads is 0"),
        (
            f"plan --layers {10**20} --hidden 64 --heads 4 --intermediate 10 --vocabulary 10",
            "num_hidden_layers is 1000",
        ),
        ("launch", "no command"),
        ("launch --target moon -- true", "no target 'moon'"),
        ("launch --name Bad_Name -- true", "job name"),
        ("launch --time soon -- true", "duration"),
        ("launch --nodes 2 -- true", "one node"),
        ("launch -- no-such-program-anywhere", "no program"),
        ("launch --target slurm --partition a;b --dry-run -- true", "partition"),
        ("launch --target slurm --serve --dry-run -- true", "serve"),
        ("launch --target kubernetes --dry-run -- true", "--image"),
        ("launch --target kubernetes --image a:1 --partition p --dry-run -- true", "--partition"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", *line.split(" ")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_local_passes_output_and_exit_code_through(tmp_path: Path) -> None:
    log = tmp_path / "out.log"
    done = run("compute", "launch", "--log", str(log), "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.returncode == 7
    assert done.stdout == log.read_text() == "out\nerr\n"


def test_local_passes_standard_input() -> None:
    assert run("compute", "launch", "--", "cat", input="hello").stdout == "hello"


def test_local_reports_a_killed_command_as_the_shell_does() -> None:
    assert run("compute", "launch", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_signals_on(tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo caught; exit 5' TERM INT; touch {ready}; while :; do sleep 0.05; done"
    with subprocess.Popen([*HIGHRISE, "compute", "launch", "--", "sh", "-c", script], stdout=subprocess.PIPE) as job:
        end = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.02)
        job.send_signal(number)
        out, _ = job.communicate(timeout=30)
    assert (job.returncode, out) == (5, b"caught\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_log_ends_the_command(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = f"echo text; sleep 2; touch {alive}"
    done = run("compute", "launch", "--log", "/dev/full", "--", "sh", "-c", script)
    assert done.returncode == 2
    assert "the disk is full while writing the log /dev/full" in done.stderr
    time.sleep(2.5)
    assert not alive.exists()


words = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=20)


@given(command=st.lists(words, min_size=1, max_size=4))
def test_no_argument_changes_what_a_shell_reads(command: list[str]) -> None:
    job = Job(command=tuple(command), image="a:1")
    assert shlex.split(find_launcher("local").render(job)) == command
    last = find_launcher("slurm").render(job).split("\n")[-2]
    assert shlex.split(last)[4:] == command  # exec srun --kill-on-bad-exit=1 --cpus-per-task=1


def test_a_signal_reaches_the_children_of_the_command(tmp_path: Path) -> None:
    ready, survived = tmp_path / "ready", tmp_path / "survived"
    script = f"(sleep 1.5; touch {survived}) & touch {ready}; wait"
    with subprocess.Popen([*HIGHRISE, "compute", "launch", "--", "sh", "-c", script]) as job:
        end = time.monotonic() + 30
        while not ready.exists() and time.monotonic() < end:
            time.sleep(0.02)
        job.terminate()
        assert job.wait(timeout=30) == 128 + signal.SIGTERM
    time.sleep(2)
    assert not survived.exists()


def test_dry_run_of_local_is_a_shell_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", "launch", "--dry-run", "--", "echo", "a b"]) == 0
    assert capsys.readouterr().out == "echo 'a b'\n"


def test_every_target_is_found() -> None:
    assert launcher_names()[:3] == ("local", "slurm", "kubernetes")
    for name in ("local", "slurm"):
        assert find_launcher(name).render(Job(command=("true",)))


def test_an_installed_package_may_add_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "extra-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[highrise.adapters]\nlaunch-echo = extra_target:Echo\nlaunch-local = extra_target:Echo\n"
    )
    (tmp_path / "extra_target.py").write_text("class Echo:\n    def render(self, job): return 'echo\\n'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "echo" in launcher_names()
    assert find_launcher("echo").render(Job(command=("true",))) == "echo\n"
    assert find_launcher("local").render(Job(command=("true",))) == "true\n"  # ours is not taken over


def test_job_refuses_text_that_would_change_a_script() -> None:
    for options in ({"command": ("a\nb",)}, {"command": ("a",), "image": "x y"}, {"command": ("a",), "seconds": 1}):
        with pytest.raises(InputError):
            Job(**options)  # type: ignore[arg-type]
