"""Floor 2, git: the few questions asked of the `git` program, objects read through it, and clones kept in a cache
folder.

Hooks and file-system monitors of a foreign repository are never run. Knows nothing of cleaning.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.core.files import exclusive

__all__ = [
    "GitObject",
    "clone",
    "default_cache",
    "fingerprint_refs",
    "head",
    "is_url",
    "list_files",
    "list_history",
    "list_tree",
    "read_objects",
    "split_revision",
    "top_level",
]


class GitObject(msgspec.Struct, frozen=True):
    """A blob of a repository under a path; with a `reason` it is none that can be read."""

    path: str
    size: int
    name: str
    reason: str = ""


_URL = re.compile(r"(https?|ssh|git|file)://|[\w.-]+@[\w.-]+:")
_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false")


def is_url(source: str) -> bool:
    """Whether a source is a git URL (https, ssh, git, file, or user@host:path)."""
    return _URL.match(source) is not None


def default_cache() -> Path:
    """Where clones lie unless another folder is given."""
    return Path.home() / ".cache" / "highrise" / "repositories"


def _ask(folder: Path, *arguments: str) -> bytes | None:
    """The answer of git inside `folder`; None where git is absent or refuses."""
    try:
        done = subprocess.run(
            ["git", *_SAFE, "-C", str(folder), *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def top_level(folder: Path) -> Path | None:
    """The root of the work tree that `folder` lies in; None when it is in none or is ignored by it."""
    answer = _ask(folder, "rev-parse", "--show-toplevel")
    if not answer or not answer.strip():
        return None
    top = Path(os.fsdecode(answer.rstrip(b"\n")))
    if folder.resolve() != top.resolve() and _ask(top, "check-ignore", "-q", str(folder.resolve())) is not None:
        return None
    return top


def head(folder: Path) -> str:
    """The commit of HEAD, 40 hex digits, or "" in a repository without a commit or outside one."""
    answer = _ask(folder, "rev-parse", "--verify", "-q", "HEAD")
    return answer.decode().strip() if answer else ""


def list_files(folder: Path) -> list[str] | None:
    """Paths below `folder` that git tracks or would add, with forward slashes; None where git cannot tell."""
    answer = _ask(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate")
    if answer is None:
        return None
    return [os.fsdecode(path) for path in answer.split(b"\0") if path]


def split_revision(source: str) -> tuple[Path, str] | None:
    """`REPOSITORY@REVISION` as folder and revision ("*" for the history); a bare repository stands for its HEAD."""
    whole = Path(source).expanduser()
    if whole.is_dir():
        return (whole, "HEAD") if _is_bare(whole) else None
    if "@" not in source or is_url(source):
        return None
    name, _, revision = source.rpartition("@")
    folder = Path(name or ".").expanduser()
    if (
        not revision
        or revision.startswith("-")
        or not folder.is_dir()
        or _ask(folder, "rev-parse", "--git-dir") is None
    ):
        return None
    return folder, revision


def _is_bare(folder: Path) -> bool:
    if not ((folder / "HEAD").is_file() and (folder / "objects").is_dir()):
        return False
    answer = _ask(folder, "rev-parse", "--is-bare-repository")
    return answer is not None and answer.strip() == b"true"


def fingerprint_refs(folder: Path) -> str:
    """Changes when any branch or tag does."""
    return hashlib.sha256(_ask(folder, "show-ref", "--head") or b"").hexdigest()[:40]


def list_tree(folder: Path, revision: str) -> tuple[str, list[GitObject]]:
    """The commit and the sorted blobs of a revision; `InputError` when there is no such commit."""
    answer = _ask(folder, "rev-parse", "--verify", "-q", "--end-of-options", f"{revision}^{{commit}}")
    listed = _ask(folder, "ls-tree", "-r", "-z", "-l", "--full-tree", answer.decode().strip()) if answer else None
    if answer is None or listed is None:
        raise InputError(f'{folder} has no commit "{revision}"; give a branch, a tag, a commit, or "*" for the history')
    entries = []
    for line in listed.split(b"\0")[:-1]:
        facts, _, path = line.partition(b"\t")
        mode, kind, name, size = facts.split()
        reason = "symlink" if mode == b"120000" else "" if kind == b"blob" else "not a file"
        entries.append(GitObject(os.fsdecode(path), int(size) if size.isdigit() else 0, name.decode(), reason))
    return answer.decode().strip(), sorted(entries, key=lambda entry: entry.path)


def list_history(folder: Path) -> list[GitObject]:
    """Every content that a commit of a branch or tag holds, once, under the newest path it had; sorted by path."""
    listed = _ask(folder, "log", "--all", "--raw", "-m", "--no-renames", "--no-abbrev", "-z", "--format=")
    if not listed:
        raise InputError(f"{folder} has no history: it holds no commit")
    fields = listed.split(b"\0")
    paths: dict[bytes, bytes] = {}
    for facts, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, name, _ = facts.split()
        if mode in (b"100644", b"100755"):
            paths.setdefault(name, path)
    checked = subprocess.run(
        ["git", *_SAFE, "-C", str(folder), "cat-file", "--batch-check"],
        input=b"\n".join(paths) + b"\n",
        capture_output=True,
        check=False,
    ).stdout
    entries = []
    for line in checked.splitlines():
        name, kind, size = [*line.split(), b"", b""][:3]
        if kind == b"blob" and name in paths:
            entries.append(GitObject(os.fsdecode(paths[name]), int(size), name.decode()))
    return sorted(entries, key=lambda entry: (entry.path, entry.name))


def read_objects(folder: Path, entries: Iterable[GitObject], *, max_bytes: int) -> Iterator[tuple[GitObject, bytes]]:
    """The bytes of each object, one at a time through one `git cat-file`; b"" for one over `max_bytes` or missing."""
    process = subprocess.Popen(
        ["git", *_SAFE, "-C", str(folder), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        for entry in entries:
            if entry.size > max_bytes:
                yield entry, b""
                continue
            process.stdin.write(entry.name.encode() + b"\n")
            process.stdin.flush()
            head_line = process.stdout.readline().split()
            if len(head_line) != 3:
                yield entry, b""
                continue
            data = process.stdout.read(int(head_line[2]))
            process.stdout.read(1)
            yield entry, data
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def clone(url: str, *, cache: Path, timeout: float, refresh: bool = False) -> Path:
    """The work tree of `url` in `cache`, cloned (depth 1) when it is not there or `refresh` asks for the newest.

    Raises `InputError` when the URL cannot be reached within `timeout` seconds.
    """
    name = re.sub(r"\.git$", "", re.split(r"[/:]", url.rstrip("/"))[-1]) or "repository"
    folder = cache / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}" / name
    with exclusive(folder.parent.with_suffix(".lock"), busy=f"another process is cloning {url}; wait for it to end"):
        if folder.exists() and not refresh:
            return folder
        partial = folder.with_name(f"{name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _run_clone(url, partial, timeout)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    return folder


def _run_clone(url: str, target: Path, timeout: float) -> None:
    command = [
        "git",
        *_SAFE,
        "clone",
        "--quiet",
        "--depth",
        "1",
        "--single-branch",
        "--no-tags",
        "--",
        url,
        str(target),
    ]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=timeout, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        shutil.rmtree(target, ignore_errors=True)
        raise InputError(
            f"cloning {url} took longer than {timeout:.0f} s; raise data.clone_timeout or clone it yourself"
        ) from error
    except OSError as error:
        raise InputError(f"cannot clone {url}: git is not installed; clone it elsewhere and name the folder") from error
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["git gave no reason"]
        reason = next((line for line in lines if line.startswith("fatal:")), lines[-1]).removeprefix("fatal: ")
        raise InputError(f"cannot clone {url}: {reason}; check the address and your access, or clone it yourself")
