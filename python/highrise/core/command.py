"""Floor 0, commands: one declaration gives parser, help, documentation and test of a command.

A floor lists its commands in `commands.py` as data; `run` names the function as "module:function", imported only when
the command is called, so that `--help` loads nothing heavy. It takes the parsed arguments and returns the exit code.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import msgspec

__all__ = ["Argument", "Command", "Parser", "add_commands", "load"]


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """One argument of a command; the fields are argparse's."""

    names: tuple[str, ...]
    help: str
    type: Callable[[str], object] | None = None
    default: object = None
    choices: tuple[str, ...] | None = None
    nargs: str | int | None = None
    flag: bool = False
    required: bool = False
    metavar: str | None = None
    dest: str | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One command: `highrise` followed by `path`."""

    path: tuple[str, ...]
    help: str
    example: str
    run: str
    arguments: tuple[Argument, ...] = ()


class Parser(argparse.ArgumentParser):
    """argparse's, which says in one sentence what is wrong, without the usage, and ends with 2."""

    def error(self, message: str) -> NoReturn:
        """Print `message` and leave."""
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def load(command: Command) -> Callable[[argparse.Namespace], int]:
    """Import the function behind a command."""
    module, _, name = command.run.partition(":")
    function: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), name)
    return function


def _add_argument(parser: argparse.ArgumentParser, argument: Argument) -> None:
    options: dict[str, object] = {"help": argument.help, "default": argument.default}
    if argument.dest is not None:
        options["dest"] = argument.dest
    if argument.flag:
        parser.add_argument(*argument.names, action="store_true", **{**options, "default": False})  # type: ignore[arg-type]
        return
    for key in ("type", "choices", "nargs", "metavar"):
        if getattr(argument, key) is not None:
            options[key] = getattr(argument, key)
    if argument.required:
        options["required"] = True
    parser.add_argument(*argument.names, **options)  # type: ignore[arg-type]


def add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command], floors: dict[str, str]) -> None:
    """Hang every command below `parser`; `floors` gives the help line of each group."""
    top = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    groups: dict[str, argparse._SubParsersAction[argparse.ArgumentParser]] = {}
    for command in commands:
        holder = top
        if len(command.path) == 2:
            group = command.path[0]
            if group not in groups:
                inner = top.add_parser(group, help=floors.get(group, ""), description=floors.get(group, ""))
                groups[group] = inner.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
            holder = groups[group]
        leaf = holder.add_parser(
            command.path[-1],
            help=command.help,
            description=command.help,
            epilog=f"example:\n  {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for argument in command.arguments:
            _add_argument(leaf, argument)
        leaf.set_defaults(chosen=command)
