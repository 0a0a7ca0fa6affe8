"""Floor 2, web archives: WARC and WET records through `adapters/fastwarc.py`; pages become text by `extract.py`.

Responses with HTML or plain text and conversion records (WET) are items; other types are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from highrise.data.readers.archive import DAMAGE
from highrise.data.readers.item import Blob, Item, Limits, TooMuch, stem_of

__all__ = ["read_warc"]

_ENDINGS = {"text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt", "application/pdf": "pdf"}


def read_warc(blob: Blob, limits: Limits) -> Iterator[Item]:
    """One item a page, named after its number and host; a `Reader`."""
    from highrise.data.adapters.fastwarc import pages

    stem = stem_of(blob.name)
    total = number = 0
    try:
        with blob.open() as file:
            for page in pages(file, max_bytes=limits.item_bytes):
                number += 1
                host = re.sub(r"[^\w.-]", "_", page.host)[:80]
                ending = _ENDINGS.get(page.kind, "")
                path = f"{stem}/{number}-{host}.web.{ending}" if ending else f"{stem}/{number}-{host}"
                total += len(page.data)
                if total > limits.total_bytes or (total > 16_000_000 and total > limits.ratio * max(blob.size, 1)):
                    raise TooMuch(f"unpacks to more than {limits.ratio} times its size or {limits.total_bytes} bytes")
                if not ending:
                    yield Item(path=path, size=page.size, reason="not text", detail=page.kind or "no content type")
                elif page.size > limits.item_bytes:
                    yield Item(path=path, size=page.size, reason="too large", detail=f"{page.size} bytes")
                else:
                    yield Item(path=path, size=len(page.data), data=page.data, repository=page.host)
    except TooMuch as error:
        yield Item(path=stem, size=blob.size, reason="bomb", detail=str(error))
    except DAMAGE as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=f"after {number} records: {error}"[:200])
    if not number and blob.size:
        yield Item(path=stem, size=blob.size, reason="damaged", detail="no record in it")
