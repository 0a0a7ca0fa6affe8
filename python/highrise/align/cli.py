"""Floor 5, command line: arguments in, a library call, its counts out."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from highrise.align.config import MethodConfig
from highrise.core.catalogue import locate
from highrise.core.config import Config, convert, load_toml
from highrise.core.errors import ConfigError, InputError
from highrise.core.manifest import read_manifest
from highrise.core.progress import say

__all__ = ["merge", "tune"]


class _File(Config, frozen=True):
    align: tuple[MethodConfig, ...]


def tune(arguments: argparse.Namespace) -> int:
    """`highrise align tune`."""
    methods, base, data = _methods(arguments), locate(arguments.base), Path(arguments.data)
    read_manifest(data)

    from highrise.align import tune as tuning  # torch takes seconds to load, a wrong word is told before

    counts = tuning.tune(methods, base, data, Path(arguments.out), say=say)
    if arguments.json:
        print(msgspec.json.encode(counts).decode())
    else:
        print(f"{'adapter kept' if counts['kept'] else 'no adapter'}; see {Path(arguments.out) / 'CARD.md'}")
    return 0


def merge(arguments: argparse.Namespace) -> int:
    """`highrise align merge`."""
    base, adapter = locate(arguments.base), Path(arguments.adapter)
    if not (adapter / "adapter_config.json").is_file():
        raise InputError(f"{adapter} is no adapter folder: it has no adapter_config.json")

    from highrise.align.merge import merge as merge_folder

    merge_folder(base, adapter, Path(arguments.out), dtype=arguments.dtype)
    print(f"merged weights are in {arguments.out}")
    return 0


def _methods(arguments: argparse.Namespace) -> tuple[MethodConfig, ...]:
    given = {name: getattr(arguments, name) for name in ("method", "budget", "feedback")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.config is not None:
        if given:
            raise ConfigError(f"both --config and --{next(iter(given))} were given; write the value into the file")
        return load_toml(Path(arguments.config), _File).align
    return convert({"align": [{"method": "sft", **given}]}, _File, where="align tune").align
