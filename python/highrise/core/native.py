"""Floor 0, native: opens the two compiled modules of the one shared object.

`rust` is the PyO3 module (data, encode, serve), `csrc` the pybind11 module (kernels). Knows nothing of what they do.
A missing or foreign build is one sentence, not an ImportError from the loader.
"""

from __future__ import annotations

from importlib import util as importlib_util
from importlib.machinery import ExtensionFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

from highrise.core.errors import HighriseError

__all__ = ["csrc", "rust"]


def _open_rust() -> ModuleType:
    try:
        from highrise import _native
    except ImportError as error:
        raise HighriseError(
            f"the native module of highrise cannot be loaded ({error}); install a wheel, or build it with `make build`"
        ) from error
    return _native


def _open_csrc(path: str) -> ModuleType:
    loader = ExtensionFileLoader("highrise._csrc", path)
    spec = importlib_util.spec_from_loader("highrise._csrc", loader)
    assert spec is not None
    module = importlib_util.module_from_spec(spec)
    loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from highrise import _csrc as csrc
    from highrise import _native as rust
else:
    rust = _open_rust()
    csrc = _open_csrc(str(rust.__file__))
