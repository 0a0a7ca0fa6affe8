"""The command line: collects the floors' commands, calls one, turns an error into a sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from highrise import __version__
from highrise.core.command import Command, Parser, add_commands, load
from highrise.core.errors import HighriseError, InputError

__all__ = ["FLOORS", "all_commands", "build_parser", "main"]

FLOORS = {
    "compute": "floor 1: detect this machine, plan, launch jobs",
    "data": "floor 2: read, clean, screen and de-duplicate sources",
    "encode": "floor 3: tokenise, pack, index, search",
    "train": "floor 4: train a decoder, evaluate it",
    "align": "floor 5: tune on instructions and preferences, guard",
    "serve": "floor 6: run a model over the OpenAI protocol",
    "agent": "floor 7: the assistant: API, chat page, tools",
}
_OTHERS = {"bench": "measure what a server feels like under load"}


def all_commands() -> tuple[Command, ...]:
    """Every command of the assistant and of the seven floors."""
    modules = ["highrise.commands", *(f"highrise.{floor}.commands" for floor in FLOORS)]
    return tuple(command for name in modules for command in importlib.import_module(name).COMMANDS)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(prog="highrise", description=(__import__("highrise").__doc__ or "").split("\n")[0])
    parser.add_argument("--version", action="version", version=f"highrise {__version__}")
    add_commands(parser, all_commands(), FLOORS | _OTHERS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (bad usage or configuration)."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = build_parser().parse_args(words)
    try:
        _refuse_other_encodings(words)
        code = load(parsed.chosen)(parsed)
        sys.stdout.flush()
        return code
    except HighriseError as error:
        print(f"highrise: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("highrise: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"highrise: the system refused: {where}{error.strerror or error}", file=sys.stderr)
        if error.filename is not None:  # a path that was given, so input; without one it is the output
            return InputError.exit_code
        _drop_stdout()
        return HighriseError.exit_code


def _refuse_other_encodings(words: Sequence[str]) -> None:
    """Names that are not UTF-8 cannot be written into a manifest, a table or a request."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode("utf-8", "backslashreplace")
            raise InputError(f'the argument "{shown}" is not UTF-8; rename the file, or write it in UTF-8') from None


def _drop_stdout() -> None:
    """Let nothing more be written to a pipe that closed or a disk that is full, not even when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
