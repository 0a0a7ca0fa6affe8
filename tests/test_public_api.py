"""The public surface is a tested list, and importing it loads nothing heavy."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import highrise
from highrise.cli import all_commands, build_parser
from highrise.core.command import Command, load

HEAVY = ["torch", "numpy", "litestar", "pyarrow", "faiss", "transformers"]


def test_top_level_names() -> None:
    expected = ["__version__", "agent", "align", "compute", "core", "data", "encode", "serve", "train"]
    assert sorted(highrise.__all__) == expected
    with pytest.raises(AttributeError, match="no attribute 'basement'"):
        highrise.basement  # noqa: B018


@pytest.mark.parametrize("module", ["highrise", "highrise.cli"])
def test_import_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom highrise.cli import build_parser\n"
        f"build_parser().format_help(); print([name for name in {HEAVY} if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    for info in pkgutil.walk_packages(highrise.__path__, "highrise."):
        if info.name.split(".")[-1] in ("_native", "__main__"):
            continue
        try:
            module = importlib.import_module(info.name)
        except ModuleNotFoundError as error:
            # An adapter is the only place that may need what is not installed: the systems past one machine.
            absent = (error.name or "").split(".")[0]
            assert ".adapters." in info.name and absent in ("ray", "pyspark"), f"{info.name}: {error}"
            continue
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{info.name}.{name}"


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: " ".join(command.path))
def test_every_command_has_help_example_and_function(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(load(command))
    assert command.example.startswith("highrise ")
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*command.path, "--help"])
    assert stop.value.code == 0
    assert command.example in capsys.readouterr().out
