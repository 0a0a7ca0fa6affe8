"""Whole builds from containers, revisions and histories; crashes of workers; what an earlier build spares."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from highrise.core.errors import ConfigError, InputError
from highrise.data import build as build_module
from highrise.data import clean
from highrise.data.build import build_data, build_dataset
from highrise.data.clean import Job, Record, clean_jobs, new_record
from highrise.data.config import DataConfig
from highrise.data.pool import Pool
from highrise.data.shards import read_documents
from highrise.data.sources import open_source
from highrise.data.stream import project_of
from tests.data.conftest import MakeRepository, git, module
from tests.data.test_readers import jsonl, tar

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy ... the above copyright notice ..."


def fates(folder: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(folder / "files.parquet").to_pylist()
    return {f"{row['repository']}:{row['path']}": (row["reason"], row["detail"]) for row in rows}


def test_a_pattern_of_sdists_is_built_version_by_version(tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        members = {f"p-{version}/m{n}.py": module(n).encode() for n in range(5)}
        members |= {f"p-{version}/LICENSE": MIT.encode(), f"p-{version}/new.py": module(int(version[-1]) + 50).encode()}
        (tmp_path / f"p-{version}.tar.gz").write_bytes(tar(members))
    (tmp_path / "q-1.0.tar.gz").write_bytes(b"no archive")
    counts = build_dataset(DataConfig(sources=(f"{tmp_path}/*.tar.gz",)), tmp_path / "out", workers=0)
    found = fates(tmp_path / "out")
    assert found["p:p-1.1/m1.py"] == ("duplicate", "of p/p-1.0/m1.py") and found["p:p-1.1/new.py"] == ("", "")
    assert found["q:q-1.0"][0] == "damaged"
    assert counts["dropped: duplicate"] == 6 and counts["documents"] == 8 and counts["own"] == 0
    assert {document.license for document in read_documents(tmp_path / "out")} == {"MIT"}


def test_equal_files_beside_each_other_shift_nothing(make_repository: MakeRepository, tmp_path: Path) -> None:
    """A file equal to the one just before it is no new record: what follows keeps its own fate."""
    files: dict[str, str | bytes] = {"a/__init__.py": "x = 1\n", "b/__init__.py": "x = 1\n", "c/__init__.py": "x = 1\n"}
    files |= {"d/broken.py": "def f(:\n", "e/good.py": module(1), "f/empty.py": ""}
    folder = make_repository("team", files)
    build_dataset(DataConfig(sources=(str(folder),)), tmp_path / "out", workers=0)
    assert {name.partition(":")[2]: reason for name, (reason, _) in fates(tmp_path / "out").items()} == {
        "a/__init__.py": "",
        "b/__init__.py": "duplicate",
        "c/__init__.py": "duplicate",
        "d/broken.py": "broken",
        "e/good.py": "",
        "f/empty.py": "empty",
    }
    rows = pq.read_table(tmp_path / "out" / "files.parquet").to_pylist()
    assert all(
        row["path"].endswith("good.py") for row in rows if row["sha256"] and row["quality"] == rows[4]["quality"]
    )


def test_tables_and_dumps(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(jsonl(*({"code": module(n), "path": f"m{n}.py", "repo_name": f"team/{n % 3}"} for n in range(9))))
    counts = build_dataset(DataConfig(sources=(str(rows),), own=(str(rows),)), tmp_path / "out", workers=0)
    assert counts["documents"] == counts["own"] == 9
    assert {document.repository for document in read_documents(tmp_path / "out")} == {"team/0", "team/1", "team/2"}
    with pytest.raises(ConfigError, match=r'data\.own names "x", which is not among'):
        DataConfig(own=("x",))


def test_a_revision_a_bare_repository_and_a_history(make_repository: MakeRepository, tmp_path: Path) -> None:
    folder = make_repository("team", {"a.py": module(1), "b.py": module(2), "LICENSE": MIT})
    (folder / "a.py").write_text(module(3))
    (folder / "b.py").rename(folder / "c.py")
    (folder / "link.py").symlink_to("c.py")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "second")
    git(tmp_path, "clone", "-q", "--bare", str(folder), str(tmp_path / "bare.git"))
    config = DataConfig()

    def listed(name: str) -> list[str]:
        return [entry.path for entry in open_source(name, config).objects]

    assert listed(f"{folder}@HEAD~1") == ["LICENSE", "a.py", "b.py"]
    assert listed(f"{folder}@main") == listed(str(tmp_path / "bare.git")) == ["LICENSE", "a.py", "c.py"]
    assert open_source(f"{folder}@main", config).skipped == (("link.py", "symlink"),)
    history = open_source(f"{folder}@*", config)
    assert sorted(entry.path for entry in history.objects if entry.size > 50) == ["LICENSE", "a.py", "a.py", "c.py"]
    with pytest.raises(InputError, match='has no commit "nothing"; give a branch'):
        open_source(f"{folder}@nothing", config)
    counts = build_dataset(DataConfig(sources=(f"{folder}@*",)), tmp_path / "out", workers=0)
    assert counts["documents"] == 4
    texts = {document.text for document in read_documents(tmp_path / "out")}
    assert {module(1), module(2), module(3)} < texts
    assert {document.license for document in read_documents(tmp_path / "out")} == {"MIT"}


def test_a_new_commit_changes_the_fingerprint(make_repository: MakeRepository) -> None:
    from highrise.data.sources import fingerprint_source

    folder = make_repository("team", {"a.py": module(1)})
    names = (f"{folder}@main", f"{folder}@*")
    before = [fingerprint_source(open_source(name, DataConfig())) for name in names]
    (folder / "a.py").write_text(module(2))
    git(folder, "commit", "-aqm", "second")
    assert all(new != old for new, old in zip(
        (fingerprint_source(open_source(name, DataConfig())) for name in names), before, strict=True
    ))  # fmt: skip


def test_projects() -> None:
    names = "requests-2.31.0 scikit-learn-1.4 Foo_Bar-1.0-py3-none-any plain a-b"
    assert [project_of(name) for name in names.split()] == ["requests", "scikit-learn", "foo-bar", "plain", "a-b"]


def job(path: str, data: bytes = b"x = 1\n") -> Job:
    return Job(path=path, source="s", repository="r", own=True, license="MIT", size=len(data), key=path, data=data)


def die_on_request(record: Record, data: bytes, config: DataConfig) -> None:
    if data == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"hang":
        time.sleep(60)
    if data == b"raise":
        raise RecursionError("too deep")
    record.text = "text"


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that inherit the replaced `clean_bytes`."""
    from multiprocessing import get_context

    from highrise.data import pool

    monkeypatch.setattr(clean, "clean_bytes", die_on_request)
    context = get_context("fork")
    context.set_forkserver_preload = lambda modules: None  # type: ignore[method-assign]
    monkeypatch.setattr(pool, "get_context", lambda name: context)


@pytest.mark.usefixtures("forked")
def test_a_crash_costs_one_file(tmp_path: Path) -> None:
    finished: list[int] = []
    bodies = [b"a", b"die", b"b", b"raise", b"hang", b"c", b"die"]
    with Pool(DataConfig(), workers=2, timeout=1.0, done=lambda jobs: finished.append(len(jobs))) as pool:
        for chunk in range(3):
            pool.clean([job(f"{chunk}/{n}.py", body) for n, body in enumerate(bodies)], tmp_path / f"{chunk}.parquet")
        pool.finish()
        assert pool.num_deaths == 9
    assert finished == [7, 7, 7]
    for chunk in range(3):
        rows = pq.read_table(tmp_path / f"{chunk}.parquet", partitioning=None).to_pylist()
        assert [row["reason"] for row in rows] == ["", "crashed", "", "crashed", "timeout", "", "crashed"]
        assert rows[1]["detail"] == "the process ended with -9" and rows[3]["detail"] == "RecursionError: too deep"


def test_a_full_disk_in_a_worker_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Pool(DataConfig(), workers=1, timeout=9, done=lambda jobs: None) as pool, pytest.raises(InputError):
        pool.clean([job("a.py")], tmp_path / "file" / "part.parquet")
        pool.finish()


def test_only_new_files_are_cleaned_again(
    make_repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: dict[str, str | bytes] = {f"m{n}.py": module(n) for n in range(30)}
    files |= {"copy.py": module(1), "near.py": module(2) + "# more\n", "broken.py": "def f(:\n", "png": b"\0"}
    folder = make_repository("team", files)
    config = DataConfig(sources=(str(folder),))
    build_data(config, tmp_path / "data", workers=0)
    (folder / "m3.py").write_text(module(300))
    (folder / "extra.py").write_text(module(301))
    build_data(config, tmp_path / "fresh", workers=0)
    cleaned: list[str] = []

    def counted(jobs: list[Job], config: DataConfig) -> object:
        cleaned.extend(job.path for job in jobs if job.done is None)
        return clean_jobs(jobs, config)

    monkeypatch.setattr(build_module, "clean_jobs", counted)
    build_data(config, tmp_path / "data", workers=0)
    near = {"near.py", "m2.py"}  # one of them is no longer in the shards
    assert {"extra.py", "m3.py"} <= set(cleaned) <= {"extra.py", "m3.py", *near} and len(cleaned) <= 3
    for name in ("files.parquet", "shards/00000.parquet", "DATACARD.md"):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_other_thresholds_clean_everything_again(make_repository: MakeRepository, tmp_path: Path) -> None:
    folder = make_repository("team", {f"m{n}.py": module(n) for n in range(5)})
    build_data(DataConfig(sources=(str(folder),)), tmp_path / "data", workers=0)
    strict = DataConfig(sources=(str(folder),), cleaning=DataConfig().cleaning.__class__(min_quality=0.99))
    with pytest.raises(InputError, match="5 low quality"):
        build_data(strict, tmp_path / "data", workers=0)


def test_a_record_knows_its_job() -> None:
    record = new_record(job("a/b.py"))
    assert (record.path, record.repository, record.license, record.reason) == ("a/b.py", "r", "MIT", "")
