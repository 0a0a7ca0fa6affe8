"""Floor 3, the index on the command line: `highrise encode index` and `highrise encode search`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.core.manifest import build_stage, read_manifest
from highrise.encode.index import Hit, IndexConfig, SearchIndex, build_index

__all__ = ["find_index", "run_index", "run_search"]

_SHOWN_LINES = 6


def run_index(arguments: argparse.Namespace) -> int:
    """Build an index as a stage: an unchanged one is not built again, a killed one goes on."""
    data, out = Path(arguments.data), Path(arguments.out)
    config = IndexConfig(
        budget=arguments.budget, embedder=arguments.embedder, threads=arguments.threads, store=arguments.store
    )
    inputs = {"data": read_manifest(data).fingerprint}
    manifest, reused = build_stage(
        out,
        stage="index",
        config=config,
        inputs=inputs,
        build=lambda partial: build_index(config, data, partial, previous=out),
    )
    if arguments.json:
        print(msgspec.json.encode({**manifest.counts, "seconds": manifest.seconds, "reused": reused}).decode())
        return 0
    counts = manifest.counts
    print(f"{out}: {counts['chunks']} chunks of {counts['documents']} documents, {counts['terms']} terms")
    print(
        f"  {counts['embedded']} embedded ({counts['vector_index']}, {counts['reused_vectors']} taken over), "
        f"{counts['lexical_only']} found by words alone ({counts['lexical_only_own']} of them your own)"
    )
    if "sent" in counts:
        print(f"  {counts['sent']} rows sent, {counts['removed']} removed, {counts['unchanged']} were there")
    print("  nothing had changed" if reused else f"  {manifest.seconds:.1f} s")
    return 0


def run_search(arguments: argparse.Namespace) -> int:
    """Print the hits; with none, say so on stderr and leave with 0."""
    folder = Path(arguments.index) if arguments.index else find_index(Path.cwd())
    languages = [name.strip() for name in arguments.language.split(",")] if arguments.language else None
    started = time.monotonic()
    index = SearchIndex.open(folder)
    if languages and (unknown := sorted(set(languages) - set(index.languages))):
        raise InputError(
            f"the index {folder} has no {', '.join(unknown)}; it has {', '.join(index.languages) or 'nothing'}"
        )
    try:
        hits = index.search(
            arguments.query,
            limit=arguments.limit,
            languages=languages,
            own=True if arguments.own else None,
            mode=arguments.mode,
        )
    finally:
        index.close()
    if index.note:
        print(f"highrise: {index.note}", file=sys.stderr)
    if arguments.json:
        print(msgspec.json.encode(hits).decode())
        return 0
    for hit in hits:
        print(_show(hit))
    print(f"{len(hits)} of {len(index)} chunks in {time.monotonic() - started:.2f} s", file=sys.stderr)
    return 0


def find_index(folder: Path) -> Path:
    """The only `.highrise/*/index` under `folder`."""
    found = sorted(path.parent for path in folder.glob(".highrise/*/index/manifest.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(
            f"there is no .highrise/*/index under {folder}; build one with `highrise build`, or say --index FOLDER"
        )
    names = ", ".join(str(path.relative_to(folder)) for path in found)
    raise InputError(f"there are {len(found)} indexes under {folder} ({names}); choose one with --index FOLDER")


def _show(hit: Hit) -> str:
    lines = hit.text.split("\n")
    shown = [f"    {line}" for line in lines[:_SHOWN_LINES]]
    if len(lines) > _SHOWN_LINES:
        shown.append(f"    ... {len(lines) - _SHOWN_LINES} more lines")
    name = f"  {hit.symbol}" if hit.symbol else ""
    return "\n".join([f"{hit.path}:{hit.start_line}-{hit.end_line}{name}  [{hit.score:.4f}]", *shown, ""])
