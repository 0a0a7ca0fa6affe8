"""The catalogue: nothing enters the cache before its hash matches; a fetch goes on where it stopped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from highrise.core import catalogue, download
from highrise.core.catalogue import Entry, ModelFile, WheelPart, WheelSource, entries, locate
from highrise.core.errors import InputError

CONTENT = b"the weights of a very small model"


def model(content: bytes = CONTENT, *, size: int | None = None) -> Entry:
    part = WheelPart(package="p", version="1", member="m")
    digest = hashlib.sha256(content).hexdigest()
    file = ModelFile(
        name="w.gguf",
        size=len(content) if size is None else size,
        sha256=digest,
        sources=(WheelSource(parts=(part, part)),),
    )
    return Entry(name="mini", about="", kind="decoder", license="MIT", files=(file,))


@pytest.fixture
def fetched_parts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts `model()` into the catalogue; its two parts are the halves of CONTENT."""
    calls: list[str] = []

    def extract(_: WheelPart, member: Path) -> None:
        calls.append(member.name)
        half = len(CONTENT) // 2
        member.write_bytes(CONTENT[:half] if member.name == "00" else CONTENT[half:])

    monkeypatch.setattr(catalogue, "entries", lambda: {"mini": model()})
    monkeypatch.setattr(download, "_extract_member", extract)
    return calls


def test_pinned_entries_are_whole() -> None:
    for name, entry in entries().items():
        assert entry.name == name
        for file in entry.files:
            assert len(file.sha256) == 64 and file.size > 0 and file.sources


def test_fetch_verifies_and_is_reused(tmp_path: Path, fetched_parts: list[str]) -> None:
    said: list[str] = []
    path = locate("mini", download=True, cache=tmp_path, say=said.append)
    assert path.read_bytes() == CONTENT
    assert "33 B" in said[0] and "package index" in said[0]
    assert locate("mini", cache=tmp_path) == path
    assert fetched_parts == ["00", "01"]


def test_a_fetch_goes_on_where_it_was_killed(tmp_path: Path, fetched_parts: list[str]) -> None:
    parts = tmp_path / "mini" / "w.gguf.partial.parts"
    parts.mkdir(parents=True)
    (parts / "00").write_bytes(CONTENT[: len(CONTENT) // 2])
    assert locate("mini", download=True, cache=tmp_path).read_bytes() == CONTENT
    assert fetched_parts == ["01"]


def test_a_wrong_hash_is_refused_and_removed(
    tmp_path: Path, fetched_parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "entries", lambda: {"mini": model(b"another content")})
    with pytest.raises(InputError, match=r"w.gguf was refused and removed: it has 33 bytes"):
        locate("mini", download=True, cache=tmp_path)
    assert [path.name for path in (tmp_path / "mini").iterdir()] == [".lock"]


def test_a_changed_file_in_the_cache_is_refused_and_removed(tmp_path: Path, fetched_parts: list[str]) -> None:
    path = locate("mini", download=True, cache=tmp_path)
    path.write_bytes(b"tampered")
    with pytest.raises(InputError, match="had another hash"):
        locate("mini", cache=tmp_path)
    assert not path.exists()


def test_absent_and_unknown_models_tell_the_remedy(tmp_path: Path, fetched_parts: list[str]) -> None:
    with pytest.raises(InputError, match="run `highrise fetch mini` once"):
        locate("mini", cache=tmp_path)
    with pytest.raises(InputError, match='no model "maxi" in the catalogue and no such path; known are mini'):
        locate("maxi", cache=tmp_path)
