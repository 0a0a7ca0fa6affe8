"""The signals and the shape of a text as `rust/data/src/signals.rs` defines them, in the slow and obvious way."""

from __future__ import annotations

import re

_SPACE = " \t\n\r\v\f"
_COMMENT = re.compile(r"#(?!!)|//|/\*|\*[ /]|--[ \t\r\f]|;|%")
_DEFINITION = re.compile(r"(?:async[ \t]+)?(?:def|class)[ \t]+[A-Za-z]")

_DOCSTRING = re.compile(r'^[ \t]*[rRuU]?("""|\'\'\')(.*?)\1', re.M | re.S)


def signals(text: str) -> dict[str, int]:
    raw = [line for line in text.split("\n") if line.strip(_SPACE)]
    lines = [line.strip(_SPACE) for line in raw]
    runs = {run for line in lines for run in re.findall(r"(?:[A-Za-z0-9_]|[^\x00-\x7f])+", line)}
    names = {run for run in runs if run.isascii() and len(run) <= 64 and not run[0].isdigit()}
    return {
        "filled": len(lines),
        "solid": sum(map(len, lines)),
        "unique": len(set(lines)),
        "letters": sum(not c.isascii() or c.isalpha() for line in lines for c in line),
        "deep": sum(line.startswith((" " * 24, "\t" * 6)) for line in raw),
        "names": len(names),
        "name_letters": sum(map(len, names)),
        "commented": sum(len(line) for line in lines if _COMMENT.match(line)),
        "definitions": sum(_DEFINITION.match(line) is not None for line in lines),
        "documented": sum(
            len(line.strip(_SPACE)) for string in _DOCSTRING.finditer(text) for line in string[2].split("\n")
        ),
    }


def shape(text: str) -> tuple[int, int, int, int, int]:
    lines = text.split("\n")
    return (
        len(lines) - (text == "" or text.endswith("\n")),
        max(map(len, lines)),
        sum(not c.isascii() or c.isalpha() for c in text),
        sum(c in " \t\n" for c in text),
        max((len(run) for run in re.findall(r"[A-Za-z0-9+/]{64,}", text)), default=0),
    )
