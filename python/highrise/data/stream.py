"""Floor 2, stream: the items of a source one by one, whatever the source is. Knows nothing of what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from highrise.data import git
from highrise.data.licenses import UNKNOWN, RepositoryLicenses, is_license_file
from highrise.data.readers import Item, Limits, reader_for
from highrise.data.readers.item import Blob, stem_of
from highrise.data.sources import STDLIB, Source

__all__ = ["stream"]

_LICENSE_BYTES = 1 << 17


def stream(source: Source, limits: Limits) -> Iterator[Item]:
    """Every item of `source` in its order, with its repository, and the licence of its repository where it has none."""
    if source.files:
        yield from _folder(source, limits)
    elif source.objects:
        yield from _objects(source, limits)
    for blob in source.blobs:
        yield from _blob(source, blob, limits)


def _folder(source: Source, limits: Limits) -> Iterator[Item]:
    found = RepositoryLicenses((file.path for file in source.files), lambda path: _read_small(source.root / path))
    fallback = "PSF-2.0" if source.name == STDLIB else _license_above(source.root)
    for file in source.files:
        identifier = found.of(file.path)
        item = Item(
            path=file.path,
            size=file.size,
            repository=source.repository,
            license=fallback if identifier == UNKNOWN else identifier,
        )
        if file.size > limits.item_bytes:
            yield msgspec.structs.replace(item, reason="too large", detail=f"{file.size} bytes")
            continue
        try:
            with (source.root / file.path).open("rb") as opened:
                data = opened.read(limits.item_bytes + 1)
        except OSError as error:
            yield msgspec.structs.replace(item, reason="unreadable", detail=error.strerror or str(error))
            continue
        if len(data) > limits.item_bytes:
            yield msgspec.structs.replace(item, reason="too large", detail="grew while it was read")
            continue
        yield msgspec.structs.replace(item, data=data)


def _objects(source: Source, limits: Limits) -> Iterator[Item]:
    folder = source.root
    wanted = [entry for entry in source.objects if is_license_file(entry.path) and entry.size <= _LICENSE_BYTES]
    texts = {
        e.path: d.decode("utf-8", "replace") for e, d in git.read_objects(folder, wanted, max_bytes=_LICENSE_BYTES)
    }
    found = RepositoryLicenses(texts, texts.get)
    for entry, data in git.read_objects(folder, source.objects, max_bytes=limits.item_bytes):
        item = Item(
            path=entry.path, size=entry.size, data=data, repository=source.repository, license=found.of(entry.path)
        )
        if entry.size > limits.item_bytes:
            item = msgspec.structs.replace(item, reason="too large", detail=f"{entry.size} bytes")
        elif len(data) != entry.size:
            item = msgspec.structs.replace(item, data=b"", reason="missing")
        yield item


def _blob(source: Source, blob: Blob, limits: Limits) -> Iterator[Item]:
    """Licences inside an archive are read in a pass of their own, since they may stand behind what they cover."""
    reader = reader_for(blob.name)
    module = reader.__module__.rpartition(".")[2] if hasattr(reader, "__module__") else ""
    found = RepositoryLicenses((), lambda _: None)
    if module == "archive":
        small = msgspec.structs.replace(limits, item_bytes=min(limits.item_bytes, _LICENSE_BYTES))
        texts = {
            item.path: item.data.decode("utf-8", "replace")
            for item in reader(blob, small)
            if not item.reason and is_license_file(item.path)
        }
        found = RepositoryLicenses(texts, texts.get)
    repository = project_of(stem_of(blob.name)) if module == "archive" else stem_of(blob.name)
    for item in reader(blob, limits):
        yield msgspec.structs.replace(
            item,
            repository=item.repository or (source.repository if module == "single" else repository),
            license=item.license or found.of(item.path),
        )


def project_of(stem: str) -> str:
    """The project of a release: `requests-2.31.0` -> `requests`, so that its versions are one group of the split."""
    name, _, rest = stem.partition("-")
    while rest and not rest[0].isdigit():
        part, _, rest = rest.partition("-")
        name = f"{name}-{part}"
    return name.lower().replace("_", "-") or stem


def _read_small(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_LICENSE_BYTES).decode("utf-8", "replace")
    except OSError:
        return None


def _license_above(root: Path) -> str:
    """The licence of the work tree that `root` is a subfolder of."""
    top = git.top_level(root)
    if top is None or top.resolve() == root:
        return UNKNOWN
    names = [path.name for path in top.iterdir() if path.is_file() and is_license_file(path.name)]
    return RepositoryLicenses(names, lambda name: _read_small(top / name)).of("file")
