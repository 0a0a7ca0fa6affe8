"""Highrise: the whole building of a language-model product, from raw source code to ghost text in an editor.

Importing this package loads nothing heavy: each floor is imported when its name is first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["__version__", "agent", "align", "compute", "core", "data", "encode", "serve", "train"]

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    if name in __all__ and name != "__version__":
        return importlib.import_module(f"highrise.{name}")
    raise AttributeError(f"module 'highrise' has no attribute {name!r}")
