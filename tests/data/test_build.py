"""The whole floor: what a build writes, that it resumes after a kill, and that it stops well on a full disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq
import pytest

from highrise.core.errors import InputError
from highrise.core.manifest import read_manifest
from highrise.data import build as build_module
from highrise.data.build import build_data, build_dataset, data_inputs
from highrise.data.clean import Job
from highrise.data.config import DataConfig
from highrise.data.shards import SCHEMA, read_documents
from tests.data.conftest import MakeRepository, module

TOKEN = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.fixture
def sources(make_repository: MakeRepository) -> tuple[str, str]:
    files: dict[str, str | bytes] = {f"part_{n % 6}/m{n}.py": module(n) for n in range(40)}
    files |= {
        "copy.py": module(1),
        "near.py": module(2) + "# a remark at the end\n",
        "broken.py": "def f(:\n",
        "empty.py": "",
        "image.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "latin.py": "# caf\xe9\nx = 1\n".encode("latin-1"),
        "keys.py": f'TOKEN = "{TOKEN}"\n',
        "package-lock.json": "{}",
        "LICENSE": (Path(__file__).parents[2] / "LICENSE").read_text("utf-8"),
        "vendor/lib.py": module(77),
        "gpl.py": "# SPDX-License-Identifier: GPL-3.0-only\nx = 2\n",
        "big.txt": "word " * 60_000,
    }
    own = make_repository("team", files)
    other = make_repository("other", {f"m{n}.py": module(n) for n in range(100, 104)}, commit=False)
    return str(own), str(other)


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_build_counts_every_file(sources: tuple[str, str], tmp_path: Path) -> None:
    config = DataConfig(sources=sources, max_file_bytes=100_000)
    manifest, reused = build_data(config, tmp_path / "data")
    counts = manifest.counts
    assert not reused
    assert counts["files"] == 56
    dropped = {name.removeprefix("dropped: "): n for name, n in counts.items() if name.startswith("dropped: ")}
    assert dropped == {
        "too large": 1, "empty": 1, "binary": 1, "generated": 1, "broken": 1, "duplicate": 1, "near duplicate": 1,
        "vendored": 1,
    }  # fmt: skip
    assert counts["documents"] == counts["files"] - sum(dropped.values()) == counts["train"] + counts["validation"]
    assert counts["redactions"] == 1 and counts["validation"]
    documents = list(read_documents(tmp_path / "data"))
    assert len(documents) == counts["documents"]
    by_path = {document.path: document for document in documents}
    assert TOKEN not in "".join(document.text for document in documents)
    assert by_path["latin.py"].text == "# caf\xe9\nx = 1\n"
    assert by_path["gpl.py"].license == "GPL-3.0-only" and by_path["keys.py"].license == "Apache-2.0"
    for document in documents:
        assert document.sha256 == hashlib.sha256(document.text.encode()).hexdigest()
        assert 0 <= document.quality <= 1 and document.language and document.own
    assert len(list(read_documents(tmp_path / "data", split="validation"))) == counts["validation"]
    assert not list(read_documents(tmp_path / "data", own=False))
    files = pq.read_table(tmp_path / "data" / "files.parquet").to_pylist()
    fate = {row["path"]: (row["reason"], row["detail"]) for row in files}
    pair = {fate["near.py"], fate["part_2/m2.py"]}
    assert pair in ({("", ""), ("near duplicate", f"of team/{path}")} for path in ("near.py", "part_2/m2.py"))
    assert fate["copy.py"][0] == "duplicate" or fate["part_1/m1.py"][0] == "duplicate"
    assert fate["broken.py"] == ("broken", "line 1: invalid syntax")
    card = (tmp_path / "data" / "DATACARD.md").read_text("utf-8")
    for words in (
        "| broken | 1 |",
        "`broken.py`",
        "| Apache-2.0 |",
        "| python |",
        "1 GITHUB_TOKEN",
        "1 latin-1",
        "held out by whole",
    ):
        assert words in card
    assert not (tmp_path / "data" / "work").exists()


def test_shards_have_the_columns_of_a_document(sources: tuple[str, str], tmp_path: Path) -> None:
    config = DataConfig(sources=sources, shard_bytes=20_000)
    build_data(config, tmp_path / "data")
    shards = sorted((tmp_path / "data" / "shards").glob("*.parquet"))
    assert len(shards) > 1
    assert pq.read_schema(shards[0]).remove_metadata() == SCHEMA
    assert pq.ParquetFile(shards[0]).metadata.row_group(0).column(0).compression == "ZSTD"


def test_unchanged_is_reused_and_a_touched_file_is_not(sources: tuple[str, str], tmp_path: Path) -> None:
    config = DataConfig(sources=sources)
    assert data_inputs(config) == data_inputs(config)
    build_data(config, tmp_path / "data")
    assert build_data(config, tmp_path / "data")[1]
    Path(sources[1], "m100.py").write_text(module(900))
    manifest, reused = build_data(config, tmp_path / "data")
    assert not reused
    assert "value_900_1" in "".join(document.text for document in read_documents(tmp_path / "data"))
    assert manifest.inputs == data_inputs(config)


def test_include_exclude_licences_and_no_near_duplicates(sources: tuple[str, str], tmp_path: Path) -> None:
    config = DataConfig(sources=sources, include=("*.py",), exclude=("part_1/",), near_duplicate=0)
    counts = build_data(config, tmp_path / "data")[0].counts
    assert counts["dropped: excluded"] >= 9 and "dropped: near duplicate" not in counts
    stdlib = DataConfig(sources=("stdlib",), licenses=("MIT",), include=("json/*.py",))
    with pytest.raises(InputError, match="none of the"):
        build_data(stdlib, tmp_path / "none")


def test_workers_do_not_change_a_byte(
    sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "_CHUNK_FILES", 10)
    config = DataConfig(sources=sources)
    build_data(config, tmp_path / "one", workers=1)
    build_data(config, tmp_path / "two", workers=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_near_duplicates_across_sources_keep_the_first(make_repository: MakeRepository, tmp_path: Path) -> None:
    """Whatever is held out, no relative of it is left to train on."""
    make_repository("a", {f"m{n}.py": module(n) for n in range(30)})
    make_repository("b", {f"m{n}.py": module(n) + "# copied\n" for n in range(30)})
    counts = build_data(DataConfig(sources=(str(tmp_path / "a"), str(tmp_path / "b"))), tmp_path / "data")[0].counts
    assert counts["dropped: near duplicate"] == 30 and counts["documents"] == 30


def test_near_duplicates_that_stay_are_on_one_side(make_repository: MakeRepository, tmp_path: Path) -> None:
    make_repository("a", {f"m{n}.py": module(n) for n in range(30)})
    make_repository("b", {f"m{n}.py": module(n) + "# copied\n" for n in range(30)})
    config = DataConfig(sources=(str(tmp_path / "a"), str(tmp_path / "b")), near_duplicate=0, validation=0.1)
    build_data(config, tmp_path / "data")
    documents = list(read_documents(tmp_path / "data"))
    assert len(documents) == 60
    held = {(document.path, document.split) for document in documents}
    assert len(held) == 30 and {side for _, side in held} == {"train", "validation"}


KILLED = """
import sys, time
from pathlib import Path
from highrise.data import build
from highrise.data.clean import Job
from highrise.data.config import DataConfig
build._CHUNK_FILES = 4
whole = build.clean_jobs
def slow(*arguments):
    time.sleep(0.05)
    return whole(*arguments)
build.clean_jobs = slow
build.build_data(DataConfig(sources=tuple(sys.argv[2:])), Path(sys.argv[1]), workers=0)
"""


def test_a_killed_build_resumes_to_the_same_bytes(
    sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_module, "_CHUNK_FILES", 4)
    config = DataConfig(sources=sources)
    build_data(config, tmp_path / "whole")
    target = tmp_path / "killed"
    partial = tmp_path / "killed.partial"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(target), *sources], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(list(partial.glob("work/*/*.parquet"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    parts = list(partial.glob("work/*/[0-9]*.parquet"))
    assert parts and not target.exists()
    for part in parts:
        pq.read_table(part)  # what carries a final name is whole
    cleaned: list[object] = []
    whole = build_module.clean_jobs

    def counted(jobs: list[Job], config: DataConfig) -> object:
        cleaned.append(jobs)
        return whole(jobs, config)

    monkeypatch.setattr(build_module, "clean_jobs", counted)
    build_data(config, target, workers=0)
    assert digest(target) == digest(tmp_path / "whole")
    assert len(cleaned) + len(parts) == 14  # 54 files that are not too large, four a chunk; no chunk was cleaned twice


@pytest.mark.slow
def test_kills_at_any_moment_change_nothing(
    sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty kills at random moments, some of them while the whole result is being written or after it."""
    monkeypatch.setattr(build_module, "_CHUNK_FILES", 4)
    config = DataConfig(sources=sources)
    build_data(config, tmp_path / "whole")
    target = tmp_path / "killed"
    generator = random.Random(4)
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(target), *sources], stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(generator.uniform(0.2, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if target.exists():
            assert digest(target) == digest(tmp_path / "whole")
            shutil.rmtree(target)
    build_data(config, target)
    assert digest(target) == digest(tmp_path / "whole")


KILLED_POOL = """
import sys
from pathlib import Path
from highrise.data import build
from highrise.data.config import DataConfig
if __name__ == "__main__":
    build._CHUNK_FILES = 4
    build.build_data(DataConfig(sources=tuple(sys.argv[2:]), search_memory=1), Path(sys.argv[1]), workers=2)
"""


def kill_pools(sources: tuple[str, str], folder: Path, config: DataConfig, kills: int) -> None:
    """Kill a build with worker processes `kills` times, its parent alone or all at once; what is left of it ends."""
    script, target = folder / "killed_pool.py", folder / "killed"
    script.write_text(KILLED_POOL)
    generator = random.Random(kills)
    whole = digest(folder / "whole")
    for number in range(kills):
        command = [sys.executable, str(script), str(target), *sources]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        parts, started = len(list((folder / "killed.partial").glob("work/*/*.parquet"))), time.monotonic()
        moment = generator.uniform(0.0, 3.0)
        while process.poll() is None and time.monotonic() < started + 20:
            begun = len(list((folder / "killed.partial").glob("work/*/*.parquet"))) != parts
            if begun or time.monotonic() > started + moment + 3:
                time.sleep(generator.uniform(0, 0.1))
                break
            time.sleep(0.005)
        if number % 2 or process.poll() is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not members(process.pid)
        if target.exists():
            assert digest(target) == whole
            shutil.rmtree(target)
    build_data(config, target, workers=2)
    assert digest(target) == whole


def members(group: int) -> list[str]:
    """The processes of a group that are not over."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, owner = path.read_text().rpartition(")")[2].split()[:3]
            if int(owner) == group and state not in "ZX":
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_pools_leave_nothing_and_resume(
    sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    monkeypatch.setattr(build_module, "_CHUNK_FILES", 4)
    config = DataConfig(sources=sources, search_memory=1)
    build_data(config, tmp_path / "whole")
    kill_pools(sources, tmp_path, config, kills)


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(
    sources: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(sources=sources)
    build_data(config, tmp_path / "data")
    before = digest(tmp_path / "data")
    Path(sources[1], "m100.py").write_text(module(901))

    def full(table: object, file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        with pytest.raises(InputError, match="the disk is full while writing") as error:
            build_data(config, tmp_path / "data")
    assert error.value.exit_code == 2
    assert digest(tmp_path / "data") == before
    assert not list(tmp_path.rglob("*.partial.*")) and not list(tmp_path.rglob(".*.parquet.*"))
    assert not build_data(config, tmp_path / "data")[1]


def test_a_damaged_shard_is_one_sentence(sources: tuple[str, str], tmp_path: Path) -> None:
    build_data(DataConfig(sources=sources), tmp_path / "data")
    shard = tmp_path / "data" / "shards" / "00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        list(read_documents(tmp_path / "data"))
    with pytest.raises(InputError, match="holds no shards"):
        list(read_documents(tmp_path))


def test_file_names_that_are_no_utf8(make_repository: MakeRepository, tmp_path: Path) -> None:
    folder = make_repository("odd", {"a.py": "x = 1\n", "tab\tname.py": "y = 2\n"}, commit=False)
    with Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).open("w") as file:
        file.write("x = 1\n")
    counts = build_dataset(DataConfig(sources=(str(folder),)), tmp_path / "out")
    assert counts["dropped: bad name"] == 1 and counts["documents"] == 2
    config = DataConfig(sources=(str(folder),), include=("a.py",))
    assert build_dataset(config, tmp_path / "less")["dropped: excluded"] == 2


def test_a_file_that_vanishes_is_counted(make_repository: MakeRepository, tmp_path: Path) -> None:
    folder = make_repository("team", {"a.py": "x = 1\n", "gone.py": "y = 1\n"})
    (folder / "gone.py").unlink()
    counts = build_dataset(DataConfig(sources=(str(folder),)), tmp_path / "out")
    assert counts["dropped: missing"] == 1


def test_the_manifest_is_that_of_a_stage(sources: tuple[str, str], tmp_path: Path) -> None:
    build_data(DataConfig(sources=sources), tmp_path / "data")
    manifest = read_manifest(tmp_path / "data")
    assert manifest.stage == "data" and set(manifest.inputs) == set(sources)


def test_a_build_imports_no_pandas(tmp_path: Path) -> None:
    """Half a CPU second a process, which pyarrow would spend wherever it finds it."""
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"text": module(n), "path": f"{n}.py"}) + "\n" for n in range(25)))
    script = (
        "import sys\nfrom pathlib import Path\nfrom highrise.data.build import build_dataset\n"
        "from highrise.data.config import DataConfig\n"
        "config = DataConfig(sources=(sys.argv[1],), search_memory=int(sys.argv[3]))\n"
        "build_dataset(config, Path(sys.argv[2]), workers=0)\n"
        "print('pandas' in sys.modules)\n"
    )
    for memory in ("1000000000", "1000"):
        command = [sys.executable, "-c", script, str(source), str(tmp_path / memory), memory]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
