"""Floor 4, checkpoint: everything a killed run needs to go on exactly where it was.

One file, replaced atomically. Batches are drawn by (seed, step), so no state of a loader is kept. Knows no loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from highrise.core.errors import TrainError
from highrise.core.files import atomic_write

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint by `state`: tensors, numbers, strings, and lists and dicts of them."""
    with atomic_write(path) as file:
        torch.save(state, file)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in `path`, or None when there is none. Loaded without running any code from the file."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainError(f"the checkpoint {path} is damaged ({error}); delete it to start this run again") from error
    return state
