"""Floor 3, cli_look: the commands that show what a vocabulary makes of a text, alone or beside another one.

Knows nothing of how text is encoded.
"""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from highrise.encode.cli_tokenize import open_tokenizer, read_texts
from highrise.encode.tokenizer import Tokenizer

__all__ = ["compare", "inspect"]

_COLOURS = (44, 42, 45, 46, 43)


def inspect(arguments: argparse.Namespace) -> int:
    """`highrise encode inspect`."""
    tokenizer = open_tokenizer(arguments.tokenizer)
    special = "all" if arguments.special else "none"
    for name, text in read_texts(arguments.files):
        ids, spans = tokenizer.encode_with_offsets(text, special=special, unit="characters")
        if arguments.json:
            tokens = [
                {"id": index, "token": tokenizer.spelling(index), "text": text[start:end], "start": start, "end": end}
                for index, (start, end) in zip(ids, spans, strict=True)
            ]
            print(msgspec.json.encode({"file": name, "tokens": tokens}).decode())
        elif arguments.ids:
            for index, (start, _) in zip(ids, spans, strict=True):
                print(f"{index:>8}  {start:>6}  {tokenizer.spelling(index)!r}")
        else:
            print(_painted(text, spans, colour=sys.stdout.isatty() or arguments.colour))
            print(f"{len(ids):,} tokens, {len(text.encode()) / max(len(ids), 1):.2f} bytes a token", file=sys.stderr)
    return 0


def _painted(text: str, spans: list[tuple[int, int]], *, colour: bool) -> str:
    """The text with every token on a ground of its own, or between bars; a token inside a character is not shown."""
    parts = []
    at = 0
    count = 0
    for start, end in spans:
        if end <= at:
            continue
        parts.append(text[at : max(start, at)])
        piece = text[max(start, at) : end]
        if colour:
            # A ground that runs over a line end paints the rest of the line.
            lines = piece.split("\n")
            ground = f"\x1b[{_COLOURS[count % len(_COLOURS)]}m"
            parts.append("\n".join(f"{ground}{line}\x1b[0m" if line else "" for line in lines))
        else:
            parts.append(f"{piece}|")
        at = end
        count += 1
    parts.append(text[at:])
    return "".join(parts)


def compare(arguments: argparse.Namespace) -> int:
    """`highrise encode compare`."""
    pair = [open_tokenizer(name) for name in (arguments.first, arguments.second)]
    rows = []
    same = True
    for name, text in read_texts(arguments.files):
        found = [_measure(tokenizer, text) for tokenizer in pair]
        same = same and found[0][0] == found[1][0]
        size = len(text.encode())
        rows.append({"file": name, "bytes": size, "tokens": [len(ids) for ids, _ in found]})
        if not arguments.json:
            for which, tokenizer, (ids, seconds) in zip("AB", pair, found, strict=True):
                rate = size / 1e6 / max(seconds, 1e-9)
                ratio = size / max(len(ids), 1)
                print(
                    f"{which} {tokenizer.vocab_size:>9,} ids  {len(ids):>10,} tokens  {ratio:5.2f} bytes a token  "
                    f"{rate:7.1f} MB/s  {name}"
                )
    if arguments.json:
        print(msgspec.json.encode({"same_ids": same, "files": rows}).decode())
    else:
        print("the ids are the same" if same else "the ids differ")
    return 0 if same or not arguments.check else 1


def _measure(tokenizer: Tokenizer, text: str) -> tuple[list[int], float]:
    started = time.perf_counter()
    ids = tokenizer.encode(text)
    return ids, time.perf_counter() - started
