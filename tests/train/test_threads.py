"""How torch's threads wait is settled before torch is loaded, and never against what a person asked for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "given", "expected"),
    [
        ("train", {}, "1000"),
        ("align", {}, "1000"),
        ("train", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("train", {"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_waiting_threads_sleep_soon(module: str, given: dict[str, str], expected: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    program = (
        f"import os, sys, highrise.{module}; assert 'torch' not in sys.modules; print(os.getenv('GOMP_SPINCOUNT'))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], env=inherited | given, capture_output=True, text=True, check=True
    )
    assert finished.stdout.strip() == expected
