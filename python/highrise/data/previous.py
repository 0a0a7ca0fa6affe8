"""Floor 2, previous: what an earlier build of the same folder found out about a file, so that only new files are
cleaned.

Found by content key (bytes, name, licence, rules), never by date. Texts that the earlier build dropped as near
duplicates are not in its shards and are cleaned again. Records and texts are read when they are asked for, a row group
at a time. Knows nothing of what changed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.errors import InputError
from highrise.core.manifest import read_manifest
from highrise.core.native import rust
from highrise.data.clean import CLEAN_SCHEMA, Job, Record, new_record
from highrise.data.shards import RowGroups, ShardTexts

__all__ = ["Previous"]

_TAKEN = (
    *("language", "license", "sha256", "quality", "quality_parts"),
    *("encoding", "redactions", "reason", "detail", "contamination"),
)
_UNDECIDED = ("", "duplicate", "near duplicate", "rejected")


class Previous:
    """Records of the build in `folder`, by content key; empty when there is none, or one that cannot be read."""

    def __init__(self, folder: Path | None) -> None:
        self.fingerprint = ""
        self._numbers = rust.data.Numbers()
        self._rows = RowGroups([])
        self._texts = ShardTexts()
        if folder is None or not (folder / "files.parquet").is_file():
            return
        files = folder / "files.parquet"
        try:
            self.fingerprint = read_manifest(folder).fingerprint
            if not set(CLEAN_SCHEMA.names) - {"text"} <= set(pq.read_schema(files).names):
                return
            self._rows, self._texts = RowGroups([files]), ShardTexts(folder)
            for number, key in enumerate(self._rows.column("key")):
                if key:
                    self._numbers.put(bytes.fromhex(key), number)
        except (InputError, pa.ArrowException, OSError):
            self.fingerprint = ""
            self._numbers = rust.data.Numbers()

    def find(self, job: Job) -> Record | None:
        """The record of `job` as it was before duplicates were looked for; None when it must be cleaned."""
        number = self._numbers.find(bytes.fromhex(job.key))
        if number is None:
            return None
        values = self._rows.row(number, _TAKEN)
        if values["reason"] in ("crashed", "timeout"):
            return None
        text = None
        if values["reason"] in _UNDECIDED:
            text = self._texts.find(values["sha256"])
            if text is None:
                return None
            values["reason"] = values["detail"] = ""
        return msgspec.structs.replace(new_record(job), text=text, **values)
