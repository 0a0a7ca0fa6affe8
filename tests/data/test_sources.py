"""What a source lists, what it leaves out, and the sentence when it cannot be opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from highrise.core.errors import InputError
from highrise.data import git
from highrise.data.config import DataConfig
from highrise.data.sources import fingerprint_source, open_source, open_sources
from tests.data.conftest import MakeRepository
from tests.data.conftest import git as run_git

CONFIG = DataConfig()
FILES = {
    "a.py": "x = 1\n",
    "pkg/b.py": "y = 2\n",
    "pkg/skip.log": "noise\n",
    "build/out.py": "z = 3\n",
    ".gitignore": "*.log\n/build/\n",
    "pkg/.gitignore": "!keep.log\n",
    "pkg/keep.log": "kept\n",
}
LISTED = [".gitignore", "a.py", "pkg/.gitignore", "pkg/b.py", "pkg/keep.log"]


def paths(folder: Path, config: DataConfig = CONFIG) -> list[str]:
    return [file.path for file in open_source(str(folder), config).files]


def test_git_work_tree_lists_tracked_and_new_files(make_repository: MakeRepository) -> None:
    folder = make_repository("repo", FILES)
    assert paths(folder) == LISTED
    (folder / "new.py").write_text("n = 1\n")
    (folder / "noise.log").write_text("n\n")
    assert paths(folder) == sorted([*LISTED, "new.py"])
    source = open_source(str(folder), CONFIG)
    assert (source.repository, source.own, len(source.head)) == ("repo", True, 40)


def test_a_folder_without_git_respects_gitignore(make_repository: MakeRepository) -> None:
    folder = make_repository("plain", FILES, commit=False)
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("1")
    assert paths(folder) == LISTED
    assert open_source(str(folder), CONFIG).head == ""


def test_a_folder_inside_a_work_tree_belongs_to_its_repository(make_repository: MakeRepository) -> None:
    folder = make_repository("repo", FILES)
    assert open_source(str(folder / "pkg"), CONFIG).repository == "repo"
    assert paths(folder / "pkg") == [".gitignore", "b.py", "keep.log"]
    assert paths(folder / "build") == ["out.py"]  # ignored by the repository, yet named: it is walked


def test_links_and_special_files_are_counted_and_not_followed(make_repository: MakeRepository) -> None:
    folder = make_repository("links", {"a.py": "x = 1\n"}, commit=False)
    (folder / "loop").symlink_to(folder)
    (folder / "outside.py").symlink_to("/etc/passwd")
    os.mkfifo(folder / "pipe")
    source = open_source(str(folder), CONFIG)
    assert [file.path for file in source.files] == ["a.py"]
    assert dict(source.skipped) == {"loop": "symlink", "outside.py": "symlink", "pipe": "not a file"}


def test_the_output_folder_is_no_source(make_repository: MakeRepository) -> None:
    folder = make_repository("repo", {"a.py": "x = 1\n"})
    for name in ("out", "out.partial", "outside"):
        (folder / name).mkdir()
        (folder / name / "f.py").write_text("1\n")
    source = open_source(str(folder), CONFIG, leave_out=folder / "out")
    assert [file.path for file in source.files] == ["a.py", "outside/f.py"]


def test_the_fingerprint_follows_files_and_head(make_repository: MakeRepository) -> None:
    folder = make_repository("repo", {"a.py": "x = 1\n"})

    def mark() -> str:
        return fingerprint_source(open_source(str(folder), CONFIG))

    first = mark()
    assert mark() == first
    os.utime(folder / "a.py", ns=(1, 1))
    second = mark()
    (folder / "b.py").write_text("y = 1\n")
    third = mark()
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-qm", "second")
    assert len({first, second, third, mark()}) == 4


def test_stdlib_is_reference_material() -> None:
    source = open_source("stdlib", CONFIG)
    names = {file.path for file in source.files}
    assert not source.own and source.repository == "python-stdlib"
    assert "argparse.py" in names and "json/decoder.py" in names
    assert not any("site-packages" in name or name.startswith("test/") or not name.endswith(".py") for name in names)


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "does not exist"), ("file.txt", "is a file, not a folder"), ("empty", "holds no readable file")],
)
def test_bad_sources_are_sentences(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message) as error:
        open_source(str(tmp_path / name), CONFIG)
    assert error.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0)
    with pytest.raises(InputError, match="permission denied"):
        open_source(str(folder), CONFIG)


def test_one_folder_twice_and_names_twice(make_repository: MakeRepository, tmp_path: Path) -> None:
    make_repository("one/repo", {"a.py": "x = 1\n"})
    make_repository("two/repo", {"a.py": "x = 2\n"})
    sources = open_sources(DataConfig(sources=(str(tmp_path / "one/repo"), str(tmp_path / "two/repo"))))
    assert [source.repository for source in sources] == ["repo", "repo-2"]
    with pytest.raises(InputError, match="the same folder"):
        open_sources(DataConfig(sources=(str(tmp_path / "one/repo"), str(tmp_path / "one/../one/repo"))))


def test_a_git_url_is_cloned_once_and_refreshed_on_demand(make_repository: MakeRepository, tmp_path: Path) -> None:
    origin = make_repository("origin", {"a.py": "x = 1\n"})
    url, cache = origin.as_uri(), tmp_path / "cache"
    source = open_source(url, CONFIG, cache=cache)
    assert [file.path for file in source.files] == ["a.py"] and source.repository == "origin"
    (origin / "b.py").write_text("y = 1\n")
    run_git(origin, "add", "-A")
    run_git(origin, "commit", "-qm", "second")
    assert len(open_source(url, CONFIG, cache=cache).files) == 1
    assert len(open_source(url, CONFIG, cache=cache, refresh=True).files) == 2


def test_an_unreachable_url_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot clone file:///nowhere/at/all: .*check the address"):
        open_source("file:///nowhere/at/all", CONFIG, cache=tmp_path)
    assert not list(tmp_path.glob("**/*.partial"))


def test_a_clone_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(InputError, match="took longer than 0 s"):
        git.clone("https://example.org/a.git", cache=tmp_path / "cache", timeout=0.2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.org/a/b.git", True),
        ("git@example.org:a/b.git", True),
        ("ssh://git@example.org/a", True),
        ("file:///a", True),
        (".", False),
        ("../a", False),
        ("C:x", False),
        ("/a/b.git", False),
    ],
)
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert git.is_url(text) is expected
