"""Floor 2, previous: what an earlier build of the same folder found out about a file, so that only new files are
cleaned.

Found by content key (bytes, name, licence, rules), never by date. Texts that the earlier build dropped as near
duplicates are not in its shards and are cleaned again. Texts are read when they are asked for, a row group of a shard
at a time. Knows nothing of what changed.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from highrise.core.errors import InputError
from highrise.core.manifest import read_manifest
from highrise.data.clean import CLEAN_SCHEMA, Job, Record, new_record
from highrise.data.shards import ShardTexts

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
        self._rows: dict[str, int] = {}
        self._files = CLEAN_SCHEMA.empty_table()
        self._texts = ShardTexts()
        if folder is None or not (folder / "files.parquet").is_file():
            return
        try:
            self.fingerprint = read_manifest(folder).fingerprint
            files = pq.read_table(folder / "files.parquet", partitioning=None)
            if set(CLEAN_SCHEMA.names) - {"text"} <= set(files.column_names):
                self._files = files
                self._texts = ShardTexts(folder)
        except (InputError, pa.ArrowException, OSError):
            self.fingerprint = ""
            return
        self._rows = {key: row for row, key in enumerate(self._files.column("key").to_pylist()) if key}

    def find(self, job: Job) -> Record | None:
        """The record of `job` as it was before duplicates were looked for; None when it must be cleaned."""
        row = self._rows.get(job.key)
        if row is None:
            return None
        values = {name: self._files.column(name)[row].as_py() for name in _TAKEN}
        if values["reason"] in ("crashed", "timeout"):
            return None
        text = None
        if values["reason"] in _UNDECIDED:
            text = self._texts.find(values["sha256"])
            if text is None:
                return None
            values["reason"] = values["detail"] = ""
        return msgspec.structs.replace(new_record(job), text=text, **values)

    @property
    def num_files(self) -> int:
        """Files that the earlier build knows a key of."""
        return int(pc.sum(pc.not_equal(self._files.column("key"), "")).as_py() or 0)
