"""Floor 2, command line: what `highrise data VERB` does with its arguments. No work of its own."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec
import pyarrow.compute as pc

from highrise.core.config import convert, dump, load_toml
from highrise.core.cores import usable_cores
from highrise.core.errors import InputError
from highrise.core.manifest import read_manifest
from highrise.core.progress import human_bytes, human_seconds
from highrise.data.build import build_data
from highrise.data.config import DataConfig, parse_memory
from highrise.data.cut import cut_lines, cut_spans
from highrise.data.duplicates import settings
from highrise.data.files import FILES_SCHEMA
from highrise.data.filters import REASONS
from highrise.data.shards import read_columns, read_documents
from highrise.data.spill import deduplicate_table
from highrise.data.tables import Table, check_target, open_table

__all__ = ["build", "dedup", "inspect", "lines", "spans", "why"]

_KEYS = ("near_duplicate", "include", "exclude", "licenses", "max_file_bytes", "validation", "seed")


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _threads(arguments: argparse.Namespace) -> int:
    if arguments.threads is None:
        return usable_cores()
    if arguments.threads < 1:
        raise InputError(f"--threads is {arguments.threads}; use 1 or more")
    return int(arguments.threads)


def build(arguments: argparse.Namespace) -> int:
    """`highrise data build`."""
    config = load_toml(Path(arguments.config), DataConfig) if arguments.config else DataConfig()
    changes = {key: getattr(arguments, key) for key in _KEYS if getattr(arguments, key) is not None}
    if arguments.sources:
        changes["sources"] = arguments.sources
    config = convert({**dump(config), **changes}, DataConfig, where="arguments")
    folder = Path(arguments.out)
    manifest, reused = build_data(config, folder, workers=_threads(arguments), refresh=arguments.refresh)
    if arguments.json:
        _print_json({"folder": str(folder), "reused": reused, "seconds": manifest.seconds, "counts": manifest.counts})
        return 0
    counts = manifest.counts
    print(
        f"{folder}: {counts['documents']} of {counts['files']} files, {human_bytes(float(counts['bytes']))}, "
        f"{counts['validation']} held out, "
        + ("unchanged, reused" if reused else f"built in {human_seconds(manifest.seconds)}")
    )
    for name, count in counts.items():
        if name.startswith("dropped: "):
            print(f"  {count:>7} {name.removeprefix('dropped: ')}")
    print(f"  see {folder / 'DATACARD.md'}")
    return 0


def dedup(arguments: argparse.Namespace) -> int:
    """`highrise data dedup`."""
    source, target = Path(arguments.input), Path(arguments.output)
    if not 0 <= arguments.seed < 2**64:
        raise InputError(f"--seed is {arguments.seed}; use 0 to {2**64 - 1}")
    table = open_table(source, arguments.column)
    check_target(target, table)
    chosen = settings(
        threshold=arguments.threshold or None,
        num_perm=arguments.num_perm,
        threads=_threads(arguments),
        seed=arguments.seed,
        verify=arguments.verify,
        shingle=arguments.shingle,
        equal=arguments.equal,
        slack=None if arguments.slack < 0 else arguments.slack,
    )
    started = time.monotonic()
    found = deduplicate_table(table, target, chosen, memory=parse_memory(arguments.memory))
    seconds = time.monotonic() - started
    if arguments.json:
        _print_json({**found, "seconds": round(seconds, 3)})
    else:
        size = found["bytes"]
        absent = f", {found['absent_texts']} rows without a text kept" if found["absent_texts"] else ""
        print(
            f"{target}: {found['kept']} of {found['texts']} texts kept, {found['exact_duplicates']} equal and "
            f"{found['near_duplicates']} nearly equal ones removed{absent}; {human_bytes(size)} in "
            f"{human_seconds(seconds)}, {human_bytes(size / max(seconds, 1e-9))}/s"
        )
    return 0


def spans(arguments: argparse.Namespace) -> int:
    """`highrise data spans`."""
    table, target = _table_and_target(arguments)
    found = cut_spans(table, target, min_bytes=arguments.min_bytes, memory=parse_memory(arguments.memory))
    if arguments.json:
        _print_json(found)
    else:
        print(f"{target}: {found['spans']} spans, {human_bytes(found['bytes_cut'])}, cut from {found['texts']} texts")
    return 0


def lines(arguments: argparse.Namespace) -> int:
    """`highrise data lines`."""
    table, target = _table_and_target(arguments)
    found = cut_lines(
        table, target, more_than=arguments.more_than, min_bytes=arguments.min_bytes, threads=_threads(arguments)
    )
    if arguments.json:
        _print_json(found)
    else:
        print(
            f"{target}: {found['lines']} lines, {human_bytes(found['bytes_cut'])} at {found['places']} places, "
            f"cut from {found['texts']} texts"
        )
    return 0


def _table_and_target(arguments: argparse.Namespace) -> tuple[Table, Path]:
    source, target = Path(arguments.input), Path(arguments.output)
    table = open_table(source, arguments.column)
    check_target(target, table)
    if target.suffix == "":
        raise InputError(f"{target} would be a folder; write to a .parquet or .jsonl file")
    return table, target


def inspect(arguments: argparse.Namespace) -> int:
    """`highrise data inspect`."""
    if arguments.sample < 0:
        raise InputError(f"--sample is {arguments.sample}; use 0 or more")
    folder = Path(arguments.folder)
    manifest = read_manifest(folder)
    step = max(1, int(manifest.counts.get("documents", 1)) // max(arguments.sample, 1))
    sample = [document for number, document in enumerate(read_documents(folder)) if number % step == step // 2]
    sample = sample[: arguments.sample]
    if arguments.json:
        _print_json({"manifest": manifest, "sample": sample})
        return 0
    print(f"{folder}, built {manifest.created} in {human_seconds(manifest.seconds)}")
    for name, count in manifest.counts.items():
        print(f"  {name}: {count}")
    for document in sample:
        print(
            f"\n--- {document.repository}/{document.path} ({document.language}, {document.license}, "
            f"quality {document.quality:.2f}, {document.split})"
        )
        print("\n".join(line[:120] for line in document.text.split("\n")[:12]))
    return 0


def why(arguments: argparse.Namespace) -> int:
    """`highrise data why`."""
    folder = Path(arguments.data)
    read_manifest(folder)
    files = read_columns(folder / "files.parquet", FILES_SCHEMA.names)
    wanted = Path(arguments.path).as_posix().removeprefix("./")
    names = pc.binary_join_element_wise(files.column("repository"), files.column("path"), "/")
    rows = files.filter(pc.equal(files.column("path"), wanted)).to_pylist()
    rows = rows or files.filter(pc.ends_with(names, f"/{wanted}")).to_pylist()
    rows = rows or [
        row for row in files.to_pylist() if Path(arguments.path).is_absolute() and wanted.endswith(f"/{row['path']}")
    ]
    if not rows:
        raise InputError(
            f"no source of {folder} listed a file {wanted}: it is ignored by git, lies outside the sources, or is "
            "newer than the build"
        )
    if arguments.json:
        _print_json(rows)
        return 0
    for row in rows:
        print(f"{row['repository']}/{row['path']}: {_verdict(row)}")
        for key in ("source", "size", "language", "license", "encoding", "quality", "quality_parts", "redactions"):
            print(f"  {key}: {row[key]}")
    return 0


def _verdict(row: dict[str, object]) -> str:
    if not row["reason"]:
        return f"kept, in {row['split']}"
    detail = f" ({row['detail']})" if row["detail"] else ""
    return f"dropped as {row['reason']}{detail}: {REASONS[str(row['reason'])]}"
