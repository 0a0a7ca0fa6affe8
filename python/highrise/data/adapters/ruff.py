"""Floor 2, ruff: how many findings a Python linter has in each of many texts. One process for all of them.

Rules that speak of mistakes and complexity, not of style: pyflakes (F), comparison and statement errors (E7, E9),
bugbear (B), McCabe (C90). Knows nothing of scores.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from highrise.core.errors import ConfigError

__all__ = ["count_findings"]

_RULES = "F,E7,E9,B,C90"


def count_findings(texts: Sequence[str]) -> list[int]:
    """The number of findings in each text; `ConfigError` where ruff is not installed."""
    if not texts:
        return []
    beside = Path(sys.executable).with_name("ruff")
    program = str(beside) if beside.is_file() else shutil.which("ruff")
    if program is None:
        raise ConfigError("data.cleaning.lint needs the program ruff; install it or leave the key out")
    with tempfile.TemporaryDirectory(prefix="highrise-ruff-") as folder:
        for number, text in enumerate(texts):
            Path(folder, f"t{number}.py").write_text(text, "utf-8", "replace")
        done = subprocess.run(
            [
                program,
                "check",
                "--isolated",
                "--no-cache",
                "--exit-zero",
                "--select",
                _RULES,
                "--output-format",
                "json",
                folder,
            ],
            capture_output=True,
            check=False,
        )
    try:
        found = json.loads(done.stdout or b"[]")
    except ValueError as error:
        raise ConfigError(f"ruff did not answer: {done.stderr.decode('utf-8', 'replace')[:200]}") from error
    counts = Counter(Path(entry["filename"]).stem for entry in found)
    return [counts[f"t{number}"] for number in range(len(texts))]
