"""Stages: reused when unchanged, resumed when killed, never half-written under their name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from highrise.core.config import Config
from highrise.core.errors import InputError
from highrise.core.files import atomic_write, exclusive
from highrise.core.manifest import build_stage, read_manifest


class Wanted(Config, frozen=True):
    size: int = 3


def build(folder: Path, *, config: Wanted | None = None, inputs: dict[str, str] | None = None, fail: bool = False):
    def work(partial: Path) -> dict[str, int]:
        (partial / "out.txt").write_text("made")
        if fail:
            raise RuntimeError("stopped")
        return {"files": 1}

    return build_stage(folder, stage="toy", config=config or Wanted(), inputs=inputs or {}, build=work)


def test_an_unchanged_stage_is_reused(tmp_path: Path) -> None:
    first, reused = build(tmp_path / "s")
    assert not reused
    second, reused = build(tmp_path / "s")
    assert reused and second == first == read_manifest(tmp_path / "s")
    assert second.config == {"size": 3} and second.counts == {"files": 1}


@pytest.mark.parametrize("change", [{"config": Wanted(size=4)}, {"inputs": {"a": "1"}}])
def test_a_change_builds_again(tmp_path: Path, change: dict) -> None:
    build(tmp_path / "s")
    _, reused = build(tmp_path / "s", **change)
    assert not reused


def test_a_count_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    arguments = {
        "stage": "toy",
        "config": Wanted(),
        "inputs": {},
        "build": lambda _: {"loss": float("nan"), "steps": 2},
    }
    build_stage(tmp_path / "s", **arguments)
    assert read_manifest(tmp_path / "s").counts == {"steps": 2}
    assert build_stage(tmp_path / "s", **arguments)[1]


def test_a_failed_stage_has_no_final_name(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        build(tmp_path / "s", fail=True)
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="not a finished stage"):
        read_manifest(tmp_path / "s")


def test_a_killed_stage_resumes_with_what_it_left(tmp_path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from highrise.core.config import Config
from highrise.core.manifest import build_stage
class Wanted(Config, frozen=True):
    size: int = 3
def work(partial):
    (partial / "half").write_text("kept")
    os.kill(os.getpid(), signal.SIGKILL)
build_stage(Path(sys.argv[1]), stage="toy", config=Wanted(), inputs={}, build=work)
"""
    finished = subprocess.run([sys.executable, "-c", program, str(tmp_path / "s")], check=False)
    assert finished.returncode == -signal.SIGKILL
    assert not (tmp_path / "s").exists()
    seen: list[str] = []

    def go_on(partial: Path) -> dict[str, int]:
        seen.append((partial / "half").read_text())
        return {}

    build_stage(tmp_path / "s", stage="toy", config=Wanted(), inputs={}, build=go_on)
    assert seen == ["kept"] and (tmp_path / "s" / "half").exists()


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match=f"the disk is full while writing {target}"), atomic_write(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_manifest_tells_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_manifest(tmp_path)


def test_a_held_lock_is_one_sentence(tmp_path: Path) -> None:
    held, wanted = (exclusive(tmp_path / "lock", busy="taken") for _ in range(2))
    with held, pytest.raises(InputError, match="taken"), wanted:
        pass


def test_a_folder_or_file_that_is_no_stage_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for target in (mine, mine / "thesis.txt"):
        with pytest.raises(InputError, match="no stage lies there"):
            build(target)
    assert (mine / "thesis.txt").read_text() == "years of work" and not list(tmp_path.glob("*.partial"))
    with pytest.raises(InputError, match="cannot be the folder of a stage"):
        build(Path())
    (tmp_path / "empty").mkdir()
    assert not build(tmp_path / "empty")[1]


def test_another_stage_is_not_replaced(tmp_path: Path) -> None:
    build(tmp_path / "s")
    with pytest.raises(InputError, match="holds the stage toy, not other"):
        build_stage(tmp_path / "s", stage="other", config=Wanted(), inputs={}, build=lambda _: {})


def test_a_manifest_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot read .*file/manifest\.json: Not a directory"):
        read_manifest(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    target = tmp_path / "taken" / "inside.json"
    with pytest.raises(InputError, match=f"failed while writing {target}: "), atomic_write(target):
        pass
    assert (tmp_path / "taken").read_text() == "a file"


def test_what_a_kill_left_of_a_file_is_removed(tmp_path: Path) -> None:
    def killed(partial: Path) -> dict[str, int]:
        (partial / "part").mkdir()
        for name in (".manifest.json.5183.partial", "part/.000.parquet.7.partial", "part/kept", ".notes.partial"):
            (partial / name).write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_stage(tmp_path / "s", stage="toy", config=Wanted(), inputs={}, build=killed)
    build_stage(tmp_path / "s", stage="toy", config=Wanted(), inputs={}, build=lambda partial: {})
    assert {path.name for path in (tmp_path / "s").rglob("*")} == {"manifest.json", "part", "kept", ".notes.partial"}
