"""Holds the stubs of the native modules to what these really have: `python scripts/stubtest.py`.

mypy's stubtest does it for everything that can be imported by name. The C++ module and the Rust submodule `data`
cannot, so they get names here first. pybind11 tells parameters only in its docstrings, which stubtest does not
read; they are compared by `signatures_differ`, which tests/test_stubs.py tries.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from types import ModuleType

from mypy.stubtest import parse_options, test_stubs

from highrise.core import native

NAMES = ("highrise._native", "highrise._native_data", "highrise._csrc")
STUB = Path(__file__).parents[1] / "python/highrise/_csrc.pyi"


def main() -> int:
    """The exit code: 0 when nothing differs."""
    sys.modules["highrise._native_data"] = native.rust.data
    sys.modules["highrise._csrc"] = native.csrc
    differences = signatures_differ(STUB.read_text(), native.csrc)
    for line in differences:
        print(f"error: {line}")
    return test_stubs(parse_options([*NAMES, "--concise"])) or (1 if differences else 0)


def signatures_differ(stub: str, module: ModuleType) -> list[str]:
    """A sentence for every function whose parameters are others in the pybind11 module than in the stub's text."""
    result = []
    for name, function in _functions(ast.parse(stub)):
        found = module
        for part in name.split("."):
            found = getattr(found, part, None)
        real = _told(getattr(found, "__doc__", None) or "", name.rpartition(".")[2])
        written = _written(function)
        if real is None:
            result.append(f"{name} has no signature in the module")
        elif real != written:
            result.append(f"{name} is written as ({', '.join(written)}), in the module it is ({', '.join(real)})")
    return result


def _functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    """Every function of the stub that is no property, with its dotted name."""
    result = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            result.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            result += [
                (f"{node.name}.{child.name}", child)
                for child in node.body
                if isinstance(child, ast.FunctionDef) and not child.decorator_list
            ]
    return result


def _written(function: ast.FunctionDef) -> list[str]:
    """Names in order, `*` before those that must be named, `=` and the value behind those with a default."""
    arguments = function.args
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
    result = [_one(argument.arg, default) for argument, default in zip(arguments.args, defaults, strict=True)]
    if arguments.kwonlyargs:
        result.append("*")
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return result + [_one(argument.arg, default) for argument, default in named]


def _one(name: str, default: ast.expr | None) -> str:
    return name if default is None else f"{name}={ast.literal_eval(default)!r}"


def _told(text: str, name: str) -> list[str] | None:
    """The same from the first line of a docstring: "rotate(x: numpy.ndarray, isa: str = 'auto') -> ..."."""
    match = re.match(rf"{re.escape(name)}\((.*)\)(?: -> .*)?$", text.split("\n")[0])
    if match is None:
        return None
    result = []
    for part in _split(match[1]):
        named = re.match(r"(\*|\w+)(?:: (.*))?$", part)
        assert named is not None, part
        kind, equals, default = (named[2] or "").rpartition(" = ")
        del kind
        result.append(f"{named[1]}={ast.literal_eval(default)!r}" if equals else named[1])
    return result


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no bracket and no quotes."""
    parts, depth, start, quoted = [], 0, 0, False
    for at, character in enumerate(text):
        if character == "'":
            quoted = not quoted
        elif quoted:
            continue
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [part for part in [*parts, text[start:].strip()] if part]


if __name__ == "__main__":
    sys.exit(main())
