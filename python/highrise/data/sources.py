"""Floor 2, sources: from what the configuration names to a sorted list of files.

A folder inside a git work tree is listed by git (tracked and not ignored); any other is walked with its .gitignore
files respected. Symbolic links are not followed. Knows nothing of what is inside the files.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pathspec

from highrise.core.config import parse_duration
from highrise.core.errors import InputError
from highrise.data import git
from highrise.data.config import DataConfig

__all__ = ["STDLIB", "Source", "SourceFile", "check_sources", "fingerprint_source", "open_source", "open_sources"]

STDLIB = "stdlib"
_NEVER = frozenset({".git", ".hg", ".svn", ".highrise"})
_CLUTTER = frozenset(
    {"__pycache__", "node_modules", ".venv", "venv", ".tox", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
)
_STDLIB_SKIP = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "lib-dynload", "ensurepip"})


class SourceFile(msgspec.Struct, frozen=True):
    """One regular file: path inside the source (forward slashes), size in bytes, time of change in nanoseconds."""

    path: str
    size: int
    mtime_ns: int


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A source that was opened: where it lies and which files it holds, sorted by path."""

    name: str
    root: Path
    repository: str
    own: bool
    head: str
    files: tuple[SourceFile, ...]
    skipped: tuple[tuple[str, str], ...]
    """(path, reason) of what is not a readable regular file: "symlink", "unreadable", "not a file"."""


def open_sources(
    config: DataConfig, *, cache: Path | None = None, refresh: bool = False, leave_out: Path | None = None
) -> list[Source]:
    """Open every source of the configuration, in its order; a repository name that repeats gets a number.

    `leave_out` is a folder (the output) that is no part of a source though it may lie in one.
    """
    sources: list[Source] = []
    names: dict[str, int] = {}
    roots: dict[Path, str] = {}
    for name in config.sources:
        source = open_source(name, config, cache=cache, refresh=refresh, leave_out=leave_out)
        if source.root in roots:
            raise InputError(
                f'sources "{roots[source.root]}" and "{name}" are the same folder {source.root}; name it once'
            )
        roots[source.root] = name
        count = names[source.repository] = names.get(source.repository, 0) + 1
        if count > 1:
            source = msgspec.structs.replace(source, repository=f"{source.repository}-{count}")
        sources.append(source)
    return sources


def check_sources(config: DataConfig) -> None:
    """`InputError` for a folder among the sources that is missing or unreadable; nothing is listed or cloned."""
    for name in config.sources:
        if name != STDLIB and not git.is_url(name):
            _existing_folder(name)


def open_source(
    name: str,
    config: DataConfig,
    *,
    cache: Path | None = None,
    refresh: bool = False,
    leave_out: Path | None = None,
) -> Source:
    """Resolve and list one source; `InputError` when it is missing, unreadable or holds no file."""
    if name == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"]).resolve()
        files, skipped = _stat_all(
            root, (p for p in _walk(root, skip=_NEVER | _CLUTTER | _STDLIB_SKIP) if p.endswith(".py"))
        )
        repository, own, head = "python-stdlib", False, sysconfig.get_python_version()
    else:
        if git.is_url(name):
            timeout = parse_duration(config.clone_timeout, where="data.clone_timeout")
            root = git.clone(name, cache=cache or git.default_cache(), timeout=timeout, refresh=refresh).resolve()
        else:
            root = _existing_folder(name)
        top = git.top_level(root)
        listed = git.list_files(root) if top is not None else None
        paths = _walk(root, skip=_NEVER | _CLUTTER) if listed is None else (p for p in listed if not _is_never(p))
        outside = _outputs(root, leave_out)
        files, skipped = _stat_all(root, (path for path in paths if not path.startswith(outside)))
        repository, own, head = (top or root).name or "root", True, git.head(root) if top is not None else ""
    if not files:
        raise InputError(f'source "{name}" holds no readable file ({root}); name a folder with text in it')
    return Source(
        name=name, root=root, repository=repository, own=own, head=head, files=tuple(files), skipped=tuple(skipped)
    )


def fingerprint_source(source: Source) -> str:
    """Changes when a file is added, removed, resized or touched, or HEAD moves."""
    digest = hashlib.sha256(f"{source.root}\0{source.repository}\0{source.head}\0".encode("utf-8", "surrogateescape"))
    for file in source.files:
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _existing_folder(name: str) -> Path:
    if not name.strip():
        raise InputError(f'a source has no name; give a folder ("." is this one), a git URL or "{STDLIB}"')
    folder = Path(name).expanduser()
    if not folder.exists():
        raise InputError(f'source "{name}" does not exist; give a folder, a git URL or "{STDLIB}"')
    if not folder.is_dir():
        raise InputError(
            f'source "{name}" is a file, not a folder; name the folder and use include = ["{folder.name}"]'
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f'source "{name}" cannot be read (permission denied); change its mode or leave it out')
    return folder.resolve()


def _outputs(root: Path, folder: Path | None) -> tuple[str, ...]:
    """Beginnings of the paths of an output folder inside `root`, of its unfinished and of its replaced form."""
    if folder is None or not folder.resolve().is_relative_to(root):
        return ()
    inside = folder.resolve().relative_to(root)
    names = (inside.name, f"{inside.name}.partial", f".{inside.name}.old")
    return tuple(f"{inside.with_name(name).as_posix()}/" for name in names) if inside.name else ()


def _is_never(path: str) -> bool:
    return any(part in _NEVER for part in path.split("/"))


def _walk(root: Path, *, skip: frozenset[str]) -> Iterator[str]:
    """Paths below `root` without the folders named in `skip` and without what .gitignore files exclude."""
    pending: list[tuple[str, tuple[tuple[str, pathspec.GitIgnoreSpec], ...]]] = [("", ())]
    while pending:
        prefix, specs = pending.pop()
        specs = (*specs, *_ignore_file(root, prefix))
        try:
            entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
        except OSError:
            yield prefix.rstrip("/")
            continue
        for entry in entries:
            path = prefix + entry.name
            folder = entry.is_dir(follow_symlinks=False)
            if (folder and entry.name in skip) or _is_ignored(path + "/" * folder, specs):
                continue
            if folder:
                pending.append((f"{path}/", specs))
            else:
                yield path


def _ignore_file(root: Path, prefix: str) -> Iterator[tuple[str, pathspec.GitIgnoreSpec]]:
    try:
        lines = (root / prefix / ".gitignore").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    yield prefix, pathspec.GitIgnoreSpec.from_lines(lines)


def _is_ignored(path: str, specs: Sequence[tuple[str, pathspec.GitIgnoreSpec]]) -> bool:
    """The deepest .gitignore that has an opinion decides, as in git."""
    for prefix, spec in reversed(specs):
        verdict = spec.check_file(path[len(prefix) :]).include
        if verdict is not None:
            return bool(verdict)
    return False


def _stat_all(root: Path, paths: Iterator[str]) -> tuple[list[SourceFile], list[tuple[str, str]]]:
    files: list[SourceFile] = []
    skipped: list[tuple[str, str]] = []
    for path in sorted(paths):
        full = root / path
        try:
            status = full.lstat()
        except OSError:
            skipped.append((path, "missing"))
            continue
        if stat.S_ISLNK(status.st_mode):
            skipped.append((path, "symlink"))
        elif not stat.S_ISREG(status.st_mode):
            skipped.append((path, "not a file"))
        elif not os.access(full, os.R_OK):
            skipped.append((path, "unreadable"))
        else:
            files.append(SourceFile(path, status.st_size, status.st_mtime_ns))
    return files, skipped
