"""Floor 2, clean: one file in, what became of it out. The order of the filters is written here and nowhere else.

Works on chunks of files, so that a chunk can go to another process and its result can be kept when a build is
stopped. Knows nothing of duplicates or splits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pathspec
import pyarrow as pa

from highrise.data import decode, filters, languages, licenses, syntax
from highrise.data.config import DataConfig
from highrise.data.quality import quality, quality_parts
from highrise.data.secrets import redact
from highrise.data.sources import SourceFile

__all__ = ["CLEAN_SCHEMA", "Chunk", "Record", "clean_bytes", "clean_chunk"]


class Record(msgspec.Struct, kw_only=True):
    """What became of one file. `text` is None when it was dropped; `reason` is a key of `filters.REASONS` or ""."""

    path: str
    source: str
    repository: str
    own: bool
    size: int
    text: str | None = None
    language: str = ""
    license: str = licenses.UNKNOWN
    sha256: str = ""
    quality: float = 0.0
    quality_parts: str = "{}"
    encoding: str = ""
    redactions: str = "{}"
    reason: str = ""
    detail: str = ""


CLEAN_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source", pa.string()),
        ("repository", pa.string()),
        ("own", pa.bool_()),
        ("size", pa.int64()),
        ("text", pa.large_string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("sha256", pa.string()),
        ("quality", pa.float64()),
        ("quality_parts", pa.string()),
        ("encoding", pa.string()),
        ("redactions", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one source that are cleaned together; `repository_licenses` holds one identifier a file."""

    source: str
    root: str
    repository: str
    own: bool
    files: tuple[SourceFile, ...]
    repository_licenses: tuple[str, ...]
    config: DataConfig


def clean_chunk(chunk: Chunk) -> pa.Table:
    """The records of a chunk as a table of `CLEAN_SCHEMA`, in the order of its files."""
    include = pathspec.GitIgnoreSpec.from_lines(chunk.config.include) if chunk.config.include else None
    exclude = pathspec.GitIgnoreSpec.from_lines(chunk.config.exclude) if chunk.config.exclude else None
    records = []
    for file, license in zip(chunk.files, chunk.repository_licenses, strict=True):
        path = file.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        record = Record(
            path=path,
            source=chunk.source,
            repository=chunk.repository,
            own=chunk.own,
            size=file.size,
            license=license,
        )
        if (include is not None and not include.match_file(file.path)) or (exclude and exclude.match_file(file.path)):
            record.reason = "excluded"
        elif path != file.path:
            record.reason = "bad name"
        else:
            _clean_file(record, Path(chunk.root) / file.path, chunk.config)
        records.append(msgspec.structs.asdict(record))
    return pa.Table.from_pylist(records, schema=CLEAN_SCHEMA)


def _clean_file(record: Record, path: Path, config: DataConfig) -> None:
    if record.size > config.max_file_bytes:
        record.reason, record.detail = "too large", f"{record.size} bytes"
        return
    try:
        with path.open("rb") as file:
            data = file.read(config.max_file_bytes + 1)
    except OSError as error:
        record.reason, record.detail = "unreadable", error.strerror or str(error)
        return
    if len(data) > config.max_file_bytes:
        record.reason, record.detail = "too large", "grew while it was read"
        return
    clean_bytes(record, data, config)


def clean_bytes(record: Record, data: bytes, config: DataConfig) -> None:
    """Run every filter on the bytes of a file and fill in `record`; changes nothing else."""
    if not data.strip(b"\0 \t\r\n"):
        record.reason = "empty"
        return
    if decode.is_binary(data, max_control_share=config.cleaning.max_control_share):
        record.reason = "binary"
        return
    raw, record.encoding = decode.decode(data)
    text = decode.normalise(raw)
    if not text:
        record.reason = "empty"
        return
    record.language = languages.identify(record.path, text)
    reason, detail = _objection(record.path, record.language, text, config)
    if reason:
        record.reason, record.detail = reason, detail
        return
    stated = licenses.file_license(text)
    if stated != licenses.UNKNOWN:
        record.license = stated
    if config.licenses != "any" and not record.own and not licenses.is_allowed(record.license, config.licenses):
        record.reason, record.detail = "license", record.license
        return
    if config.cleaning.redact_secrets:
        text, found = redact(text)
        record.redactions = msgspec.json.encode(found, order="sorted").decode()
    parts = quality_parts(record.language, text)
    record.quality_parts = msgspec.json.encode(parts).decode()
    record.quality = quality(parts)
    if record.quality < config.cleaning.min_quality:
        record.reason, record.detail = "low quality", f"{record.quality:.3f}"
        return
    record.text = text
    record.sha256 = hashlib.sha256(text.encode()).hexdigest()


def _objection(path: str, language: str, text: str, config: DataConfig) -> tuple[str, str]:
    """The first filter that objects, cheap ones first, and its detail; ("", "") when none does."""
    checks: tuple[tuple[str, Callable[[], str | None]], ...] = (
        ("vendored", lambda: filters.is_vendored(path)),
        ("generated", lambda: filters.is_generated(path, text)),
        ("minified", lambda: filters.is_minified(language, text, config.cleaning)),
        ("data", lambda: filters.is_data(language, text, config.cleaning)),
        ("broken", lambda: syntax.is_broken(language, text, config.cleaning)),
    )
    for reason, check in checks:
        if (detail := check()) is not None:
            return reason, detail
    return "", ""
