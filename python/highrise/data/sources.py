"""Floor 2, sources: from what the configuration names to a sorted list of files, of stored objects, or of git's own
objects.

A folder inside a git work tree is listed by git (tracked and not ignored); any other is walked with its .gitignore
files respected. Symbolic links are not followed. `REPOSITORY@REVISION` and bare repositories are read from git's
objects, archives, dumps and tables (also by a pattern, `sdists/*.tar.gz`) by `readers`, `s3://`, `az://` and `gs://`
through `adapters/obstore.py`. Knows nothing of what is inside the files.
"""

from __future__ import annotations

import glob
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
from highrise.data.readers import ENDINGS, reader_for
from highrise.data.readers.item import Blob, local_blob
from highrise.data.readers.single import read_single

__all__ = [
    "STDLIB",
    "Source",
    "SourceFile",
    "check_sources",
    "fingerprint_source",
    "is_remote",
    "open_source",
    "open_sources",
]

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
    files: tuple[SourceFile, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(path, reason) of what is not a readable regular file: "symlink", "unreadable", "not a file"."""
    blobs: tuple[Blob, ...] = ()
    """The stored objects of a source that is no folder."""
    revision: str = ""
    """Of a source that is read from git's objects: what stood behind "@"."""
    objects: tuple[git.GitObject, ...] = ()
    """The blobs of a source that is a revision or a history."""

    @property
    def size(self) -> int:
        """Bytes to read, as stored."""
        return sum(sum(part.size for part in parts) for parts in (self.files, self.blobs, self.objects))


def open_sources(
    config: DataConfig, *, cache: Path | None = None, refresh: bool = False, leave_out: Path | None = None
) -> list[Source]:
    """Open every source of the configuration, in its order; a repository name that repeats gets a number.

    `leave_out` is a folder (the output) that is no part of a source though it may lie in one.
    """
    sources: list[Source] = []
    names: dict[str, int] = {}
    roots: dict[tuple[Path, str], str] = {}
    for name in config.sources:
        source = open_source(name, config, cache=cache, refresh=refresh, leave_out=leave_out)
        place = (source.root, source.revision)
        if place in roots:
            raise InputError(f'sources "{roots[place]}" and "{name}" are the same folder {source.root}; name it once')
        roots[place] = name
        count = names[source.repository] = names.get(source.repository, 0) + 1
        if count > 1:
            source = msgspec.structs.replace(source, repository=f"{source.repository}-{count}")
        sources.append(source)
    return sources


def check_sources(config: DataConfig) -> None:
    """`InputError` for a local source that is missing or unreadable; nothing is listed, cloned or asked of a store."""
    for name in config.sources:
        if name != STDLIB and not git.is_url(name) and not is_remote(name) and not _local_blobs(name):
            _ = git.split_revision(name) or _existing_folder(name)


def is_remote(name: str) -> bool:
    """Whether a source is an address of an object store."""
    return name.startswith(("s3://", "az://", "gs://"))


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
        source = _stdlib()
    elif is_remote(name):
        from highrise.data.adapters.obstore import objects

        source = _stored(name, Path(name), tuple(objects(name)))
    elif blobs := _local_blobs(name):
        source = _stored(name, Path(name).absolute(), blobs)
    elif (pair := git.split_revision(name)) is not None:
        source = _revision(name, *pair)
    else:
        source = _folder(name, config, cache, refresh, leave_out)
    if not source.size and not (source.files or source.blobs or source.objects):
        raise InputError(f'source "{name}" holds no readable file ({source.root}); name a folder with text in it')
    own = (source.own or name in config.own) and name not in config.reference
    return msgspec.structs.replace(source, own=own)


def _stdlib() -> Source:
    root = Path(sysconfig.get_paths()["stdlib"]).resolve()
    paths = (p for p in _walk(root, skip=_NEVER | _CLUTTER | _STDLIB_SKIP) if p.endswith(".py"))
    files, skipped = _stat_all(root, paths)
    return Source(
        name=STDLIB,
        root=root,
        repository="python-stdlib",
        own=False,
        head=sysconfig.get_python_version(),
        files=tuple(files),
        skipped=tuple(skipped),
    )


def _folder(name: str, config: DataConfig, cache: Path | None, refresh: bool, leave_out: Path | None) -> Source:
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
    return Source(
        name=name,
        root=root,
        repository=(top or root).name or "root",
        own=True,
        head=git.head(root) if top is not None else "",
        files=tuple(files),
        skipped=tuple(skipped),
    )


def _revision(name: str, folder: Path, revision: str) -> Source:
    """A bare repository, one revision, or with "*" every content that a branch or tag ever held, once."""
    if revision == "*":
        head, objects = git.fingerprint_refs(folder), git.list_history(folder)
    else:
        head, objects = git.list_tree(folder, revision)
    skipped = tuple((entry.path, entry.reason) for entry in objects if entry.reason)
    return Source(
        name=name,
        root=folder.resolve(),
        revision=revision,
        repository=folder.resolve().name.removesuffix(".git") or "repository",
        own=True,
        head=head,
        objects=tuple(entry for entry in objects if not entry.reason),
        skipped=skipped,
    )


def _stored(name: str, root: Path, blobs: tuple[Blob, ...]) -> Source:
    """Archives, dumps and tables: reference material, unless `own` of the configuration names the source."""
    return Source(name=name, root=root, repository=root.name or name, own=False, head="", blobs=blobs)


def _local_blobs(name: str) -> tuple[Blob, ...]:
    """The files that a name or a pattern stands for, sorted; none where it is a folder or nothing."""
    path = Path(name).expanduser()
    try:
        if path.is_file():
            if reader_for(path.name) is read_single and path.suffix.lower() not in (".pdf", ".ipynb"):
                return ()
            return (local_blob(path),)
        if path.exists() or not glob.has_magic(name) or git.is_url(name):
            return ()
        found = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207
        return tuple(local_blob(match) for match in found if match.is_file() and os.access(match, os.R_OK))
    except (OSError, ValueError) as error:
        raise InputError(f'source "{name}" cannot be read: {error}; name a folder, an archive or a dump') from error


def fingerprint_source(source: Source) -> str:
    """Changes when a file or object is added, removed, resized or touched, or HEAD or the revision moves."""
    digest = hashlib.sha256(f"{source.root}\0{source.repository}\0{source.head}\0".encode("utf-8", "surrogateescape"))
    for file in source.files:
        digest.update(f"{file.path}\0{file.size}\0{file.mtime_ns}\0".encode("utf-8", "surrogateescape"))
    for blob in source.blobs:
        digest.update(f"{blob.name}\0{blob.size}\0{blob.stamp}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _existing_folder(name: str) -> Path:
    if not name.strip():
        raise InputError(f'a source has no name; give a folder ("." is this one), a git URL or "{STDLIB}"')
    folder = Path(name).expanduser()
    if not folder.exists():
        raise InputError(f'source "{name}" does not exist; give a folder, a git URL or "{STDLIB}"')
    if not folder.is_dir():
        raise InputError(
            f'source "{name}" is a file, not a folder; name the folder and use include = ["{folder.name}"], or a '
            f"container ({ENDINGS})"
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
