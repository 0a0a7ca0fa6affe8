"""Floor 1, command functions: machine, plan, launch. Turn arguments into structs, print, return the exit code."""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from highrise.compute import launch as launching
from highrise.compute.devices import device
from highrise.compute.jobs import make_job
from highrise.compute.machine import detect
from highrise.compute.plan import Question, make_plan
from highrise.compute.report import describe_machine, describe_plan
from highrise.compute.shapes import shape_from_config, shape_of
from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape

__all__ = ["launch", "machine", "plan"]

_DIMENSIONS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "intermediate": "intermediate_size",
    "vocabulary": "vocab_size",
}
_NEEDED = ("layers", "hidden", "heads", "intermediate", "vocabulary")


def _print_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def machine(arguments: argparse.Namespace) -> int:
    """`highrise compute machine`."""
    found = detect(measure=arguments.measure)
    if arguments.json:
        _print_json(found)
    else:
        print(describe_machine(found))
    return 0


def _shape(arguments: argparse.Namespace) -> tuple[str, DecoderShape]:
    given = {name: getattr(arguments, name) for name in _DIMENSIONS if getattr(arguments, name) is not None}
    if arguments.model and given:
        raise InputError(f"--model and --{next(iter(given)).replace('_', '-')} contradict each other; give one of them")
    if arguments.model:
        return arguments.model, shape_of(arguments.model)
    missing = [f"--{name}" for name in _NEEDED if name not in given]
    if missing:
        raise InputError(f"no model: give --model, or its dimensions ({', '.join(missing)} missing)")
    low = next((name for name, value in given.items() if value < 1), None)
    if low:
        raise InputError(f"--{low.replace('_', '-')} is {given[low]}; it must be at least 1")
    config: dict[str, Any] = {_DIMENSIONS[name]: value for name, value in given.items()}
    config["tie_word_embeddings"] = arguments.tied
    return "the given dimensions", shape_from_config(config, where="dimensions")


def plan(arguments: argparse.Namespace) -> int:
    """`highrise compute plan`."""
    name, shape = _shape(arguments)
    question = Question(
        devices=arguments.gpus,
        sequence=arguments.sequence,
        context=arguments.context,
        batch=arguments.batch,
        weights=arguments.weights,
        tokens=arguments.tokens,
        utilisation=arguments.utilisation,
        price=arguments.price,
    )
    answer = make_plan(name, shape, device(arguments.device), question)
    if arguments.json:
        _print_json(answer)
    else:
        print(describe_plan(answer))
    return 0


def launch(arguments: argparse.Namespace) -> int:
    """`highrise compute launch`."""
    launcher = launching.find_launcher(arguments.target)
    job = make_job(arguments)
    if arguments.dry_run:
        sys.stdout.write(launcher.render(job))
        return 0
    return launcher.submit(job)
