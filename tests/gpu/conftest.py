"""The compiled module on a real GPU; without module or device every test here is skipped with the reason."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def _load() -> ModuleType | str:
    for name in ("highrise._cuda", "_cuda"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        status, count = module.device_count()
        if status:
            return f"no GPU: error {status}, {module.error_words(status)}"
        return module if count else "no GPU: the driver found no device"
    return "the CUDA module is not built: make gpu-check"


@pytest.fixture(scope="session")
def cuda() -> ModuleType:
    """The module, with at least one device."""
    found = _load()
    if isinstance(found, str):
        pytest.skip(found)
    return found
