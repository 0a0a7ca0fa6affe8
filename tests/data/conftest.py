"""Small repositories to build from."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

MakeRepository = Callable[..., Path]


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


def module(number: int, lines: int = 30) -> str:
    """A Python module unlike that of any other number."""
    body = "\n".join(f"    value_{number}_{i} = compute_{i * number}({number}, {i})" for i in range(lines))
    return f'"""Module {number}: says what part {number} of the whole does."""\n\n\ndef function_{number}():\n{body}\n'


@pytest.fixture
def make_repository(tmp_path: Path) -> MakeRepository:
    """`make(name, files, commit=True)`: a folder with these files, under git when `commit`."""

    def make(name: str, files: dict[str, str | bytes], *, commit: bool = True) -> Path:
        folder = tmp_path / name
        for path, content in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        if commit:
            git(folder, "init", "-q")
            git(folder, "add", "-A")
            git(folder, "commit", "-qm", "first")
        return folder

    return make
