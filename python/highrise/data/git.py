"""Floor 2, git: the few questions asked of the `git` program, and clones kept in a cache folder.

Hooks and file-system monitors of a foreign repository are never run. Knows nothing of cleaning.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from highrise.core.errors import InputError
from highrise.core.files import exclusive

__all__ = ["clone", "default_cache", "head", "is_url", "list_files", "top_level"]

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
