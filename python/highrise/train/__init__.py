"""Floor 4, train. In: token files and hyperparameters. Out: base weights and an evaluation report.

torch is loaded when `Decoder`, `load_decoder` or `save_decoder` is first used, not by importing this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highrise.train.config import TrainConfig
from highrise.train.threads import wait_briefly

if TYPE_CHECKING:
    from highrise.train.model import Decoder
    from highrise.train.weights_io import load_decoder, save_decoder

__all__ = ["Decoder", "TrainConfig", "load_decoder", "save_decoder"]

wait_briefly()

_HOMES = {"Decoder": "model", "load_decoder": "weights_io", "save_decoder": "weights_io"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
