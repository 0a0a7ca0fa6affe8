"""Floor 0, stages: the folders with a manifest that lie between floors.

A stage is built in `NAME.partial` and renamed when whole. An unchanged stage is not run again; a killed one finds its
own partial folder on the next start (same fingerprint) and may go on from there. Knows nothing of what a stage does.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from highrise.core.config import dump, fingerprint
from highrise.core.errors import HighriseError, InputError
from highrise.core.files import atomic_write, explain_os_error, remove_leftovers, replace_folder
from highrise.core.json_text import decode_json

__all__ = ["FORMAT_VERSION", "Manifest", "build_stage", "is_made_of", "read_manifest"]

FORMAT_VERSION = 1
_FILE = "manifest.json"

Counts = Mapping[str, int | float | str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a stage folder holds and what it was made from."""

    format: int
    stage: str
    fingerprint: str
    config: dict[str, object]
    inputs: dict[str, str]
    counts: dict[str, int | float | str]
    seconds: float
    created: str
    version: str


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished stage folder; `InputError` when there is none or it is damaged."""
    path = folder / _FILE
    try:
        manifest = decode_json(path.read_bytes(), Manifest)
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a finished stage: it has no {_FILE}; build it first") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name the folder of a finished stage") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} is damaged ({error}); delete {folder} and build again") from error
    if manifest.format != FORMAT_VERSION:
        raise InputError(
            f"{path} has format {manifest.format}, this version reads {FORMAT_VERSION}; delete {folder} and build again"
        )
    return manifest


def _refuse_what_is_no_stage(folder: Path) -> None:
    """A finished stage takes the place of what lay under its name, so only a stage or nothing may lie there."""
    if not folder.name or folder.name == "..":
        raise InputError(f'"{folder}" cannot be the folder of a stage; name a new folder')
    try:
        if folder.is_dir() and ((folder / _FILE).exists() or not any(folder.iterdir())):
            return
    except OSError as error:
        raise explain_os_error(error, f"looking into {folder}") from error
    if folder.exists() or folder.is_symlink():
        raise InputError(f"{folder} exists and no stage lies there, so it is left as it is; write to a new folder")


def is_made_of(manifest: Manifest, stage: str, config: msgspec.Struct) -> bool:
    """Whether a finished stage was made with `config`, whatever its inputs were."""
    return manifest.fingerprint == fingerprint(FORMAT_VERSION, stage, config, dict(manifest.inputs))


def _is_finite(value: float | str) -> bool:
    return isinstance(value, str) or math.isfinite(value)


def build_stage(
    folder: Path,
    *,
    stage: str,
    config: msgspec.Struct,
    inputs: Mapping[str, str],
    build: Callable[[Path], Counts],
) -> tuple[Manifest, bool]:
    """Return the manifest of `folder`, building it when it is absent or made from something else.

    `inputs` maps names to fingerprints or hashes. `build` gets the partial folder, writes into it and returns the
    counts (one that is not finite is left out: JSON cannot hold it); what a killed run with the same fingerprint left
    there is still in it. The second value says whether the stage was reused.
    """
    from highrise import __version__

    key = fingerprint(FORMAT_VERSION, stage, config, dict(inputs))
    _refuse_what_is_no_stage(folder)
    if (folder / _FILE).exists():
        manifest = read_manifest(folder)
        if manifest.stage != stage:
            raise InputError(f"{folder} holds the stage {manifest.stage}, not {stage}; write to another folder")
        if manifest.fingerprint == key:
            return manifest, True
    partial = folder.with_name(f"{folder.name}.partial")
    mark = partial / ".fingerprint"
    try:
        if partial.exists() and (not mark.exists() or mark.read_text() != key):
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        remove_leftovers(partial)
        mark.write_text(key)
        started = time.monotonic()
        counts = build(partial)
        manifest = Manifest(
            format=FORMAT_VERSION,
            stage=stage,
            fingerprint=key,
            config=dump(config),
            inputs=dict(inputs),
            counts={key: value for key, value in counts.items() if _is_finite(value)},
            seconds=round(time.monotonic() - started, 3),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            version=__version__,
        )
        with atomic_write(partial / _FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        mark.unlink()
        replace_folder(partial, folder)
    except HighriseError:
        raise
    except OSError as error:
        raise explain_os_error(error, f"building stage {stage} in {folder}") from error
    return manifest, False
