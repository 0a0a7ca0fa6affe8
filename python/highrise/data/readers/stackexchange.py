"""Floor 2, Stack Exchange dumps: Posts.xml as questions with their answers, as Markdown-like text.

The dump orders posts by id, so that an answer follows its question. Posts are streamed; an answer whose question has
left the window of the last 20,000 questions is an item of its own. CC BY-SA, by the dump's own terms.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from xml.parsers.expat import ExpatError, ParserCreate

from highrise.data.readers.archive import DAMAGE
from highrise.data.readers.item import Blob, Item, Limits, TooMuch, decompressed, stem_of

__all__ = ["read_posts"]

_LICENSE = "CC-BY-SA-4.0"
_WINDOW = 20_000
_BLOCK = 1 << 16


def read_posts(blob: Blob, limits: Limits) -> Iterator[Item]:
    """One item a question with its answers, best answers first; a `Reader`."""
    from highrise.data.extract import html_to_text

    stem = stem_of(blob.name)
    waiting: OrderedDict[str, tuple[str, list[tuple[int, str]]]] = OrderedDict()
    rows: list[dict[str, str]] = []
    parser = ParserCreate()
    parser.StartElementHandler = lambda name, attributes: rows.append(attributes) if name == "row" else None
    parser.EntityDeclHandler = _refuse  # no entity expansion bombs

    def finish(key: str) -> Item:
        question, answers = waiting.pop(key)
        parts = [question, *(f"## Answer\n\n{body}" for _, body in sorted(answers, key=lambda pair: -pair[0]))]
        data = "\n\n".join(parts).encode("utf-8", "replace")
        path = f"{stem}/{key}.md"
        if len(data) > limits.item_bytes:
            return Item(path=path, size=len(data), reason="too large", detail=f"{len(data)} bytes")
        return Item(path=path, size=len(data), data=data, license=_LICENSE)

    def take(row: dict[str, str]) -> Item | None:
        body = html_to_text(row.get("Body", ""))
        key = re.sub(r"\W", "", row.get("Id", ""))
        if row.get("PostTypeId") == "1":
            waiting[key] = (f"# {row.get('Title', '')}\n\n{body}", [])
        elif row.get("PostTypeId") == "2":
            parent = row.get("ParentId", "")
            score = row.get("Score", "0")
            if parent in waiting:
                waiting[parent][1].append((int(score) if re.fullmatch(r"-?\d{1,9}", score) else 0, body))
            else:
                waiting[key] = (body, [])
        return finish(next(iter(waiting))) if len(waiting) > _WINDOW else None

    try:
        with decompressed(blob, limits) as stream:
            while block := stream.read(_BLOCK):
                parser.Parse(block, False)
                for row in rows:
                    if (item := take(row)) is not None:
                        yield item
                rows.clear()
            parser.Parse(b"", True)
    except TooMuch as error:
        yield Item(path=stem, size=blob.size, reason="bomb", detail=str(error))
    except (ExpatError, *DAMAGE) as error:
        yield Item(path=stem, size=blob.size, reason="damaged", detail=str(error)[:200])
    while waiting:
        yield finish(next(iter(waiting)))


def _refuse(*_: object) -> None:
    raise ValueError("it declares entities")
