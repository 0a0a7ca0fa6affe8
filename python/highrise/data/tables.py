"""Floor 2, tables: texts as people have them, Parquet or JSON lines, one file or a folder of them, read in batches.

Memory is bounded by what a batch may hold. A text that is null, or whose key is missing, is absent, not empty. Knows
nothing of how duplicates are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from highrise.core.errors import InputError

__all__ = ["JSON_ENDINGS", "Batch", "Table", "check_target", "kept_writer", "open_table"]

JSON_ENDINGS = frozenset({".jsonl", ".ndjson", ".json"})


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Some consecutive rows of one file."""

    file: int
    """Number of the file in `Table.files`."""
    first_row: int
    """Number of the first row, counted over all files."""
    texts: Any
    """An Arrow column or a list of str, an absent text as an empty one."""
    absent: npt.NDArray[np.bool_]
    """(rows,) True where there is no text."""
    rows: Any
    """The rows: an Arrow record batch, or a list of lines as they stand in the file; what was asked for of them."""
    size: int
    """Bytes of the texts, about."""


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Files of one kind with a text column."""

    path: Path
    files: tuple[Path, ...]
    is_parquet: bool
    column: str

    def fingerprint(self) -> list[list[Any]]:
        """Name, size and time of change of every file."""
        stats = [(path, path.stat()) for path in self.files]
        return [[str(path), stat.st_size, stat.st_mtime_ns] for path, stat in stats]

    def text_bytes(self) -> int:
        """Bytes of text to be read, about: for progress."""
        if not self.is_parquet:
            return sum(path.stat().st_size for path in self.files)
        total = 0
        for path in self.files:
            found = pq.read_metadata(path)
            place = found.schema.names.index(self.column) if self.column in found.schema.names else 0
            total += sum(
                found.row_group(group).column(place).total_uncompressed_size for group in range(found.num_row_groups)
            )
        return total

    def batches(self, *, memory: int, start: int = 0, whole: bool = False) -> Iterator[Batch]:
        """Batches of about `memory` bytes from row `start` on; the other columns too when `whole`.

        Raises `InputError` for what cannot be read, with the file and, in JSON, the line.
        """
        row = 0
        for number, path in enumerate(self.files):
            read = self._parquet if self.is_parquet else self._json
            try:
                for batch in read(number, path, row, memory, start, whole):
                    if len(batch.absent):
                        yield batch
                    row = batch.first_row + len(batch.absent)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error

    def _parquet(self, number: int, path: Path, row: int, memory: int, start: int, whole: bool) -> Iterator[Batch]:
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            if row + file.metadata.num_rows <= start:
                yield _nothing(number, row + file.metadata.num_rows)
                return
            for group in range(file.num_row_groups):
                found = file.metadata.row_group(group)
                if row + found.num_rows <= start:
                    row += found.num_rows
                    continue
                size = max(found.total_byte_size // max(found.num_rows, 1), 1)
                columns = None if whole else [self.column]
                rows = min(max(memory // size, 1), 1 << 16)
                for record in file.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
                    skipped = min(max(start - row, 0), len(record))
                    row += skipped
                    record = record.slice(skipped)
                    if len(record):
                        yield _of_record(number, row, record, self.column)
                    row += len(record)

    def _json(self, number: int, path: Path, row: int, memory: int, start: int, whole: bool) -> Iterator[Batch]:
        decode = _decoder(self.column)
        with path.open("rb") as file:
            line = 0
            while lines := file.readlines(memory):
                first_line, line = line, line + len(lines)
                block = lines
                if not all(map(bytes.strip, lines)):
                    lines = [text for text in lines if text.strip()]
                skipped = min(max(start - row, 0), len(lines))
                row += skipped
                lines = lines[skipped:]
                if not lines:
                    continue
                try:
                    texts = decode(lines)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise _bad_line(decode, path, block, first_line) from error
                absent = np.array([not isinstance(text, str) for text in texts], dtype=np.bool_)
                if row == 0 and absent.all():
                    _check_column(lines[0], path, self.column)
                if absent.any():
                    texts = [text if isinstance(text, str) else "" for text in texts]
                yield Batch(
                    file=number,
                    first_row=row,
                    texts=texts,
                    absent=absent,
                    rows=lines if whole else None,
                    size=sum(map(len, lines)),
                )
                row += len(lines)
        yield _nothing(number, row)


def _nothing(number: int, row: int) -> Batch:
    """No rows: tells where the file ended."""
    return Batch(file=number, first_row=row, texts=[], absent=np.zeros(0, dtype=np.bool_), rows=None, size=0)


def _of_record(number: int, row: int, record: Any, column: str) -> Batch:
    texts = record.column(record.schema.get_field_index(column))
    absent = np.asarray(texts.is_null()) if texts.null_count else np.zeros(len(texts), dtype=np.bool_)
    size = texts.nbytes
    if texts.null_count:
        texts = texts.fill_null(b"" if "binary" in str(texts.type) else "")
    return Batch(file=number, first_row=row, texts=texts, absent=absent, rows=record, size=size)


def _decoder(column: str) -> Callable[[list[bytes]], list[Any]]:
    """Reads the text of each line; other keys are skipped over."""
    kind = msgspec.defstruct(
        "Line", [("text", str | msgspec.UnsetType | None, msgspec.UNSET)], rename={"text": column}, gc=False
    )
    decoder: Any = msgspec.json.Decoder(kind)

    def decode(lines: list[bytes]) -> list[Any]:
        return [decoder.decode(line).text for line in lines]

    return decode


def _bad_line(decode: Callable[[list[bytes]], list[Any]], path: Path, lines: list[bytes], first: int) -> Exception:
    """What is wrong with the first line that cannot be decoded; there is one."""
    for number, line in enumerate(lines, first + 1):
        try:
            decode([line] if line.strip() else [])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return InputError(f"{path} cannot be read: line {number}: {error}")
    raise AssertionError(f"{path}: no bad line from line {first + 1} on")


def _check_column(line: bytes, path: Path, column: str) -> None:
    keys = msgspec.json.decode(line, type=dict[str, Any])
    if column not in keys:
        raise InputError(f'{path} has no column "{column}" but {", ".join(keys)}; name one with --column')


def open_table(path: Path, column: str) -> Table:
    """The table in `path`, a file or a folder of files of one kind.

    Raises `InputError` when there is none, or none with a text column of this name.
    """
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if file.suffix == ".parquet" or file.suffix in JSON_ENDINGS]
        files = tuple(file for file in found if file.is_file() and not file.name.startswith("."))
        if not files:
            raise InputError(f"{path} has no .parquet or .jsonl file")
    elif path.is_file():
        files = (path,)
    else:
        raise InputError(f"{path} is not a file or a folder; give a .parquet or .jsonl file")
    kinds = {file.suffix == ".parquet" for file in files}
    if len(kinds) > 1:
        raise InputError(f"{path} has Parquet and JSON files; give one kind")
    (is_parquet,) = kinds
    if not is_parquet and files[0].suffix not in JSON_ENDINGS:
        raise InputError(f'{path} ends in "{path.suffix}"; give a .parquet or .jsonl file')
    table = Table(path=path, files=files, is_parquet=is_parquet, column=column)
    if is_parquet:
        schema = _schema(files[0], column)
        for file in files[1:]:
            if not _schema(file, column).equals(schema):
                raise InputError(f"{file} has other columns than {files[0]}; give files of one schema")
    return table


def _schema(path: Path, column: str) -> Any:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    if column not in schema.names:
        raise InputError(f'{path} has no column "{column}" but {", ".join(schema.names)}; name one with --column')
    kind = schema.field(column).type
    if str(kind) not in ("string", "large_string", "binary", "large_binary"):
        raise InputError(f'column "{column}" of {path} has type {kind}; name a string or binary column')
    return schema


def check_target(path: Path, table: Table) -> None:
    """`InputError` when `path` has another form than `table` can be written in, or is what is read."""
    if path.exists() and table.path.exists() and path.samefile(table.path):
        raise InputError(f"{path} is the file that is read; write to another, so that what is removed is not lost")
    if path.suffix == "":
        if table.path.is_file():
            raise InputError(f'{path} ends in ""; write to a .parquet or .jsonl file')
        if path.is_file():
            raise InputError(f"{path} is a file; name a folder")
        return
    if path.suffix != ".parquet" and path.suffix not in JSON_ENDINGS:
        raise InputError(f'{path} ends in "{path.suffix}"; write to a .parquet or .jsonl file')
    if path.suffix == ".parquet" and not table.is_parquet:
        raise InputError(f"{path} would be Parquet made of JSON lines; write to a .jsonl file")


def kept_writer(file: BinaryIO, path: Path, table: Table) -> tuple[Callable[[Any], None], Callable[[], None]]:
    """Two functions: `write(rows)` and `finish()`, for rows of `table` under the name `path`."""
    if table.is_parquet and path.suffix == ".parquet":
        writer = pq.ParquetWriter(file, pq.read_schema(table.files[0]), compression="zstd")
        return writer.write_batch, writer.close
    encoder = msgspec.json.Encoder()

    def write(rows: Any) -> None:
        if isinstance(rows, list):
            file.writelines(rows if not rows or rows[-1].endswith(b"\n") else [*rows[:-1], rows[-1] + b"\n"])
        else:
            file.write(encoder.encode_lines(rows.to_pylist()))

    return write, lambda: None
