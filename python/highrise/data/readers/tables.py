"""Floor 2, tables: one document a line of JSON or a row of Parquet, as other people's data sets come.

The text stands in the column of `limits.text_column`, else in the first of the usual names. Path, repository, licence
and language are taken from the usual columns where there are any. Knows nothing of cleaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from highrise.data.readers.archive import DAMAGE
from highrise.data.readers.item import Blob, Item, Limits, TooMuch, decompressed, stem_of

__all__ = ["read_jsonl", "read_parquet"]

_TEXT = ("text", "content", "code", "body", "document")
_PATH = ("path", "max_stars_repo_path", "file_path", "filename", "id", "url")
_REPOSITORY = ("repository", "repo_name", "max_stars_repo_name", "repo")
_LICENSE = ("license", "license_type", "max_stars_repo_licenses", "licenses")
_PAIRS = (
    "python py javascript js typescript ts rust rs go go java java c c c++ cpp cpp cpp c# cs ruby rb php php shell sh"
)
_LANGUAGE_ENDING = dict(zip(_PAIRS.split()[::2], _PAIRS.split()[1::2], strict=True)) | {"markdown": "md"}
_BLOCK = 1 << 20


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    for name in names:
        value = row.get(name)
        if isinstance(value, list) and value:
            value = " OR ".join(str(part) for part in value)
        if isinstance(value, (str, int)) and value != "":
            return str(value)
    return ""


def _item(row: object, number: int, stem: str, limits: Limits) -> Item:
    """The item of one row; the path ends as the language says, so that it is recognised later; a text without a
    name is from the web.
    """
    at = f"{stem}/{number}"
    if not isinstance(row, Mapping):
        return Item(path=at, size=0, reason="damaged", detail="no object but " + type(row).__name__)
    names = (limits.text_column, *_TEXT)
    text = next((row[name] for name in names if isinstance(row.get(name), (str, bytes))), None)
    if text is None:
        return Item(path=at, size=0, reason="damaged", detail=f'no text in "{limits.text_column}"')
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    stated = _first(row, _PATH)
    safe = re.sub(r"\s+", " ", stated).lstrip("/") if "://" not in stated else ""
    path = f"{at}/{safe}" if safe and ".." not in safe.split("/") else at
    if "." not in path.rpartition("/")[2]:
        ending = _LANGUAGE_ENDING.get(_first(row, ("language", "lang", "programming_language")).lower(), "txt")
        path = f"{path}.{ending}" if ending != "txt" else f"{path}.web.txt"
    common: dict[str, Any] = {
        "path": path,
        "size": len(data),
        "license": _first(row, _LICENSE),
        "repository": _first(row, _REPOSITORY),
    }
    if len(data) > limits.item_bytes:
        return Item(**common, reason="too large", detail=f"{len(data)} bytes")
    return Item(**common, data=data)


def read_jsonl(blob: Blob, limits: Limits) -> Iterator[Item]:
    """One item a line; a `Reader`. A line longer than eight times the item limit is skipped without being held."""
    stem = stem_of(blob.name)
    longest = 8 * limits.item_bytes + _BLOCK
    number = 0
    try:
        with decompressed(blob, limits) as stream:
            while line := stream.readline(longest):
                number += 1
                if len(line) == longest and not line.endswith(b"\n"):
                    size = len(line)
                    while (more := stream.readline(_BLOCK)) and not more.endswith(b"\n"):
                        size += len(more)
                    yield Item(path=f"{stem}/{number}", size=size, reason="too large", detail="one line")
                    continue
                if not line.strip():
                    continue
                try:
                    row = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    yield Item(path=f"{stem}/{number}", size=len(line), reason="damaged", detail=str(error)[:200])
                    continue
                yield _item(row, number, stem, limits)
    except TooMuch as error:
        yield Item(path=stem, size=blob.size, reason="bomb", detail=str(error))
    except DAMAGE as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=f"after {number} lines: {error}"[:200])


def read_parquet(blob: Blob, limits: Limits) -> Iterator[Item]:
    """One item a row, in batches of 256; a `Reader`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stem = stem_of(blob.name)
    number = 0
    try:
        with blob.open() as file, pq.ParquetFile(file) as table:
            wanted = {limits.text_column, *_TEXT, *_PATH, *_REPOSITORY, *_LICENSE, "language", "lang"}
            names = [name for name in table.schema_arrow.names if name in wanted]
            if not names:
                raise ValueError(f"no column named {limits.text_column}, but {', '.join(table.schema_arrow.names)}")
            for batch in table.iter_batches(256, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield _item(row, number, stem, limits)
    except (*DAMAGE, pa.ArrowException) as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=f"after {number} rows: {error}"[:200])
