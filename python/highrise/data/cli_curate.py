"""Floor 2, command line of what is done with finished data folders: compare, mix, label. No work of its own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from highrise.core.config import convert
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import human_bytes
from highrise.data.adapters.openai import OpenAITeacher
from highrise.data.compare import compare
from highrise.data.config import parse_memory
from highrise.data.labels import CONFIG_XML, export_tasks
from highrise.data.mixture import MixtureConfig, mix
from highrise.data.synthetic import SyntheticConfig, synthesise

__all__ = ["diff", "label", "mixture", "synthetic"]

_SHOWN = 10


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def diff(arguments: argparse.Namespace) -> int:
    """`highrise data diff`."""
    found = compare(Path(arguments.first), Path(arguments.second))
    if arguments.json:
        _print_json(found)
        return 0
    print(f"{found.same} documents are the same, {found.moved} of them on another side of the split")
    lists: tuple[tuple[str, list[str]], ...] = (
        ("added", found.added),
        ("removed", found.removed),
        ("changed", found.changed),
        ("kept now", [f"{name} (was {reason})" for name, reason in found.now_kept]),
        ("dropped now", [f"{name} ({reason})" for name, reason in found.now_dropped]),
    )
    for title, names in lists:
        print(f"{len(names)} {title}")
        for name in names[:_SHOWN]:
            print(f"  {name}")
        if len(names) > _SHOWN:
            print(f"  and {len(names) - _SHOWN} more, see --json")
    return 0


def mixture(arguments: argparse.Namespace) -> int:
    """`highrise data mix`."""
    weights: dict[str, float] = {}
    for entry in arguments.weight or ():
        name, _, value = entry.rpartition("=")
        try:
            weights[name] = float(value)
        except ValueError as error:
            raise ConfigError(f'--weight "{entry}" is no NAME=NUMBER; write for example stdlib=0.5') from error
    keys = ("by", "temperature", "epochs", "max_epochs", "order", "seed")
    given = {key: getattr(arguments, key) for key in keys if getattr(arguments, key) is not None}
    if arguments.memory:
        given["memory"] = parse_memory(arguments.memory)
    config = convert({**given, "weights": weights}, MixtureConfig, where="arguments")
    manifest, reused = mix(Path(arguments.folder), Path(arguments.out), config)
    if arguments.json:
        _print_json({"folder": arguments.out, "reused": reused, "counts": manifest.counts})
        return 0
    counts = manifest.counts
    print(
        f"{arguments.out}: {counts['train']} documents, {human_bytes(float(counts['bytes']))}, "
        f"{counts['validation']} held out"
    )
    for name, value in counts.items():
        if name.startswith("epochs: "):
            print(f"  {float(value):.2f} epochs of {name.removeprefix('epochs: ')}")
    return 0


def synthetic(arguments: argparse.Namespace) -> int:
    """`highrise data synthesise`."""
    keys = ("kinds", "count", "max_tokens", "temperature", "seed")
    given = {key: getattr(arguments, key) for key in keys if getattr(arguments, key) is not None}
    config = convert(given, SyntheticConfig, where="arguments")
    try:
        key = Path(arguments.key_file).read_text("utf-8").strip() if arguments.key_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--key-file {arguments.key_file} cannot be read: {error}") from error
    teacher = OpenAITeacher(arguments.url, arguments.model, key=key)
    manifest, reused = synthesise(
        Path(arguments.folder), Path(arguments.out), config, teacher, concurrency=arguments.concurrency
    )
    if arguments.json:
        _print_json({"folder": arguments.out, "reused": reused, "counts": manifest.counts})
        return 0
    counts = manifest.counts
    by = f"{counts['asked']} answers by {arguments.model}"
    print(f"{arguments.out}/synthetic.jsonl: {counts['records']} records of {by}")
    for name, count in counts.items():
        if name.startswith("dropped: "):
            print(f"  {count:>7} {name.removeprefix('dropped: ')}")
    return 0


def label(arguments: argparse.Namespace) -> int:
    """`highrise data label`."""
    target = Path(arguments.out)
    count = export_tasks(
        Path(arguments.folder), target, count=arguments.count, seed=arguments.seed, worst=arguments.worst
    )
    print(f"{target}: {count} tasks; the labelling interface of the project:\n\n{CONFIG_XML}", end="")
    print(f'When people are done, export as JSON and build with verdicts = "{target.name}".')
    return 0
