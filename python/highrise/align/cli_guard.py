"""Floor 5, command line of the guardrails; apart from the rest so that it loads no torch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from highrise.align.guard import check, refusal
from highrise.core.errors import InputError

__all__ = ["guard"]


def guard(arguments: argparse.Namespace) -> int:
    """`highrise align guard`: 0 when nothing was found, 1 otherwise."""
    try:
        raw = sys.stdin.buffer.read() if arguments.file == "-" else Path(arguments.file).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {arguments.file}: {error.strerror}") from error
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{arguments.file} is no UTF-8 text ({error.reason} at byte {error.start:,}), and the guardrails read text"
        ) from error
    if "\0" in text:
        raise InputError(
            f"{arguments.file} holds NUL bytes (the first at character {text.index(chr(0)):,}): it is no text"
        )
    found = check(text, direction=arguments.direction)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    for finding in [] if arguments.json else found:
        print(f"line {text.count(chr(10), 0, finding.start) + 1}: {refusal(finding)}")
    return 1 if found else 0
