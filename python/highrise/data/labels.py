"""Floor 2, labels: documents for people to judge, out as Label Studio tasks and back as verdicts.

A task's `data` holds the text and what is known of it; a verdict is the first choice of its latest annotation. A build
that names the exported file in `verdicts` drops what people rejected. Knows nothing of filters.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.data.shards import read_documents

__all__ = ["CONFIG_XML", "export_tasks", "read_verdicts"]

CONFIG_XML = """<View>
  <Header value="$name ($language, $license, quality $quality)"/>
  <Text name="text" value="$text"/>
  <Choices name="verdict" toName="text" choice="single" required="true">
    <Choice value="keep"/><Choice value="drop"/>
  </Choices>
</View>
"""
"""The labelling interface to paste into a Label Studio project."""


class _Choice(msgspec.Struct):
    choices: list[str] = []


class _Result(msgspec.Struct):
    value: _Choice = msgspec.field(default_factory=_Choice)


class _Annotation(msgspec.Struct):
    result: list[_Result] = []
    was_cancelled: bool = False


class _Data(msgspec.Struct):
    sha256: str = ""


class _Task(msgspec.Struct):
    data: _Data
    annotations: list[_Annotation] = []


def export_tasks(folder: Path, target: Path, *, count: int, seed: int = 0, worst: bool = False) -> int:
    """Write up to `count` tasks, a sample by `seed` or the lowest scores, as JSON; returns how many."""
    documents = ((_order(document.sha256, seed), document) for document in read_documents(folder))
    chosen = sorted(documents, key=lambda pair: ((pair[1].quality if worst else 0.0), pair[0]))[: max(count, 0)]
    tasks = [
        {
            "data": {
                "text": document.text,
                "name": f"{document.repository}/{document.path}",
                "language": document.language,
                "license": document.license,
                "quality": document.quality,
                "sha256": document.sha256,
            }
        }
        for _, document in chosen
    ]
    with atomic_write(target) as file:
        file.write(msgspec.json.format(msgspec.json.encode(tasks), indent=1))
    return len(tasks)


def _order(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()


def read_verdicts(path: Path) -> dict[str, str]:
    """sha256 of a text -> "keep" or "drop", from a JSON export; tasks nobody judged are left out.

    Raises `InputError` for a file that is no export or holds another choice.
    """
    try:
        tasks = msgspec.json.decode(path.read_bytes(), type=list[_Task])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"verdicts {path} cannot be read: {error}; export the project as JSON") from error
    verdicts: dict[str, str] = {}
    for task in tasks:
        for annotation in task.annotations:
            choices = [choice for result in annotation.result for choice in result.value.choices]
            if annotation.was_cancelled or not choices or not task.data.sha256:
                continue
            if choices[0] not in ("keep", "drop"):
                raise InputError(f'verdicts {path} hold the choice "{choices[0]}"; use keep and drop')
            verdicts[task.data.sha256] = choices[0]
    return verdicts
