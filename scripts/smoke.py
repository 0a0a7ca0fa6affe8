"""What a base install (msgspec and numpy, nothing else) must be able to do: run from an empty environment."""

from __future__ import annotations

import sys

import highrise

assert "torch" not in sys.modules and "litestar" not in sys.modules

from highrise.cli import all_commands, build_parser  # noqa: E402
from highrise.core.catalogue import entries  # noqa: E402
from highrise.core.native import csrc, rust  # noqa: E402

assert rust.__version__ == highrise.__version__, (rust.__version__, highrise.__version__)
assert csrc.__doc__
assert "qwen2.5-coder-0.5b" in entries()
build_parser()
print(f"highrise {highrise.__version__}: native modules load, {len(all_commands())} commands")
