"""Floor 4, command line: arguments in, a library call, its counts out."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from highrise.core.catalogue import locate
from highrise.core.config import convert, dump, load_toml
from highrise.core.errors import InputError
from highrise.core.progress import say
from highrise.train.config import TrainConfig, check_threads

__all__ = ["corpus", "evaluate", "run"]


def corpus(arguments: argparse.Namespace) -> int:
    """`highrise train corpus`."""
    from highrise.data.shards import read_documents
    from highrise.train.corpus import build_corpus

    config = _config(arguments.config, {})
    source = Path(arguments.tokenizer)
    tokenizer = source if source.exists() else locate(arguments.tokenizer)
    counts = build_corpus(config, read_documents(Path(arguments.data)), tokenizer, Path(arguments.out))
    print(", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items()))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """`highrise train run`."""
    given = {name: getattr(arguments, name) for name in ("depth", "base", "budget", "threads")}
    config = _config(arguments.config, {name: value for name, value in given.items() if value is not None})
    if config.base is not None:
        locate(config.base)

    from highrise.train.pretrain import pretrain  # torch takes seconds to load, a wrong word is told before

    counts = pretrain(config, Path(arguments.tokens), Path(arguments.out), say=say)
    print(_shown(counts, arguments.json))
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    """`highrise train eval`."""
    if arguments.sequence < 2:
        raise InputError(f"--sequence {arguments.sequence} is too short; give at least 2")
    check_threads("--threads", arguments.threads)
    texts = [_read(Path(name)) for name in arguments.files]
    path = locate(arguments.model)

    from highrise.encode import Tokenizer
    from highrise.train.device import choose_device, keep_freed_memory, use_threads
    from highrise.train.evaluate import bits_per_byte
    from highrise.train.weights_io import load_decoder

    keep_freed_memory()
    device = choose_device("auto")
    with use_threads(arguments.threads):
        result = bits_per_byte(
            load_decoder(path, device=device),
            Tokenizer.for_weights(path),
            texts,
            sequence=arguments.sequence,
            device=device,
        )
    print(_shown(msgspec.to_builtins(result), arguments.json))
    return 0


def _config(path: str | None, given: dict[str, object]) -> TrainConfig:
    config = TrainConfig() if path is None else load_toml(Path(path), TrainConfig)
    if not given:
        return config
    return convert({**dump(config), **given}, TrainConfig, where="train run")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _shown(counts: dict[str, int | float | str], as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode(counts).decode()
    return "\n".join(
        f"{name.replace('_', ' '):<20} {value:,.4g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' '):<20} {value}"
        for name, value in counts.items()
    )
