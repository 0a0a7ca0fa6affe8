"""Imports point downward only: a floor may import core and lower floors, inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "python" / "highrise"
FLOORS = ["core", "compute", "data", "encode", "train", "align", "serve", "agent"]


def imported_modules(path: Path, source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source, filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute in this project"
            yield node.lineno, node.module or ""
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def upward_imports(path: Path, source: str, floor: str) -> list[str]:
    higher = FLOORS[FLOORS.index(floor) + 1 :]
    return [
        f"{path}:{line}: floor {floor} imports {module}"
        for line, module in imported_modules(path, source)
        if module.startswith("highrise.") and module.split(".")[1] in higher
    ]


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_downward(floor: str) -> None:
    found = [
        line
        for path in sorted((PACKAGE / floor).rglob("*.py"))
        for line in upward_imports(path, path.read_text("utf-8"), floor)
    ]
    assert not found, "\n".join(found)


def test_an_upward_import_inside_a_function_is_seen() -> None:
    source = "def f():\n    from highrise import serve\n"
    assert upward_imports(Path("x.py"), source, "data") == ["x.py:2: floor data imports highrise.serve"]
    assert not upward_imports(Path("x.py"), source, "agent")
