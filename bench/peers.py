"""The environment of peers whose pins quarrel with ours: text-dedup wants an old rich and urllib3, datatrove an old
xxhash.

usage: python bench/peers.py        makes `.venv-peers` (about 1 GB: text-dedup brings Spark and ONNX)

Benchmarks start the scripts of `bench/peer_*.py` with its Python; without it they skip these peers and say so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / ".venv-peers"
PINS = ("datatrove[io,processing]==0.10.1", "text-dedup==0.4.0", "spacy==3.8.18", "xxhash==3.8.2")


def python() -> str:
    """The interpreter of the peers; skips the benchmark when there is none."""
    found = FOLDER / "bin" / "python"
    if not found.exists():
        pytest.skip("datatrove and text-dedup are not installed; `python bench/peers.py` makes their environment")
    return str(found)


def main() -> None:
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, str(FOLDER)], check=True)
    install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", str(FOLDER / "bin" / "python")]
    subprocess.run([*install, *PINS], check=True)


if __name__ == "__main__":
    main()
