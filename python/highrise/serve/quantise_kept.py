"""Floor 6, quantise: layers that are finished, in a folder beside the result, so that a killed run goes on after them.

One safetensors file a layer, and the states of the text after the last one, written last. Knows nothing of what the
tensors are.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.safetensors import SafeTensors, write_safetensors

__all__ = ["Kept"]

Array = npt.NDArray[np.generic]
_STATES = "states.safetensors"


class Kept:
    """Tensors by name, layer by layer. `key` names the work: what lies there from other work is removed."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key = folder, key
        self._files: list[SafeTensors] = []
        self.states: npt.NDArray[np.float32] | None = None
        """After the layers that are finished; None before the first."""
        try:
            found = SafeTensors(folder / _STATES)
            if found.metadata.get("key") == key:
                self._files = [SafeTensors(self._path(layer)) for layer in range(int(found.metadata["layers"]))]
                self.states = np.asarray(found.read("states"), np.float32)
        except InputError:  # not there, or not whole
            self._files = []
        if not self._files:
            self.remove()
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def layers(self) -> int:
        """How many are finished."""
        return len(self._files)

    def put(self, tensors: Mapping[str, Array], states: npt.NDArray[np.float32]) -> None:
        """Keep the next layer, and `states` in place of those after the one before. `InputError` for a full disk."""
        path = self._path(self.layers)
        write_safetensors(path, tensors)
        self._files.append(SafeTensors(path))
        meta = {"key": self._key, "layers": str(self.layers)}
        write_safetensors(self.folder / _STATES, {"states": states}, metadata=meta)
        self.states = states

    def names(self) -> set[str]:
        """Of all tensors that are kept."""
        return {name for file in self._files for name in file.tensors}

    def get(self, name: str) -> Array | None:
        """A tensor, backed by its file; None if it is not here."""
        return next((file.read(name) for file in self._files if name in file.tensors), None)

    def remove(self) -> None:
        """Take the folder away."""
        self._files = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer-{layer:03}.safetensors"
