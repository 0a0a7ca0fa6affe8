"""Floor 2, fastwarc: the records of a WARC file that hold a page. Knows nothing of what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import msgspec

from highrise.core.errors import InputError

__all__ = ["Page", "pages"]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of one record, at most `max_bytes` + 1 of it, and its media type."""

    host: str
    kind: str
    size: int
    data: bytes


def pages(file: BinaryIO, *, max_bytes: int) -> Iterator[Page]:
    """The response and conversion records in their order, one held at a time."""
    try:
        from fastwarc.warc import ArchiveIterator, WarcRecordType
    except ImportError as error:
        raise InputError('reading WARC needs fastwarc; install "highrise[readers]"') from error
    wanted = WarcRecordType.response | WarcRecordType.conversion
    for record in ArchiveIterator(file, record_types=wanted, parse_http=True):
        data = record.reader.read(max_bytes + 1)
        yield Page(
            host=_host(record.headers.get("WARC-Target-URI", "") or ""),
            kind=_kind(record),
            size=max(len(data), int(record.content_length or 0) if len(data) > max_bytes else 0),
            data=data,
        )


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "unknown"
    except ValueError:
        return "unknown"


def _kind(record: Any) -> str:
    headers = record.http_headers
    stated = headers.get("Content-Type", "") if headers is not None else record.headers.get("Content-Type", "")
    return str(stated or "").partition(";")[0].strip().lower()
