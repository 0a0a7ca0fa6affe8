"""Floor 6, loaded adapters: the LoRA adapters beside the weights of one decoder, by name, with who uses them.

Reading and packing an adapter may happen on any thread; all else on the engine's, so nothing here needs a lock. One
that is taken away while requests run under it refuses new ones and is freed after the last. Knows no HTTP.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape
from highrise.serve.adapter import read_adapter

__all__ = ["AdapterHolder", "LoadedAdapter", "LoadedAdapters", "UnknownAdapterError"]

_MOST = 64
_LONGEST_NAME = 256

Floats = npt.NDArray[np.float32]


class UnknownAdapterError(InputError):
    """No adapter of that name is loaded (404)."""


class AdapterHolder(Protocol):
    """The part of a decoder that adapters are put into."""

    def add_adapter(self) -> int:
        """The number of a new, empty adapter."""
        ...

    def set_adapter(self, adapter: int, name: str, a: Floats, b: Floats, scale: float, exact: bool = False) -> None:
        """Its part beside the weight `name`: output += scale * b @ (a @ input)."""
        ...

    def remove_adapter(self, adapter: int) -> None:
        """Free one that no step will name again."""
        ...


class LoadedAdapter:
    """One adapter: where it came from, its number in the decoder, and how many requests run under it."""

    __slots__ = ("created", "leaving", "name", "num_requests", "number", "path")

    def __init__(self, name: str, path: Path, number: int) -> None:
        self.name = name
        self.path = path
        self.number = number
        self.num_requests = 0
        self.leaving = False
        self.created = int(time.time())


class LoadedAdapters:
    """Adapters by name. `exact` keeps their numbers as they are in the file, else 8 bits."""

    most = _MOST
    """How many may be loaded at a time."""

    def __init__(self, decoder: AdapterHolder, shape: DecoderShape, *, exact: bool = False) -> None:
        self._decoder = decoder
        self._shape = shape
        self._exact = exact
        self._by_name: dict[str, LoadedAdapter] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names that requests may use, in the order of loading."""
        return tuple(self._by_name)

    def find(self, name: str) -> LoadedAdapter:
        """The adapter of that name; `UnknownAdapterError` when there is none. Any thread may ask."""
        found = self._by_name.get(name)
        if found is None:
            raise UnknownAdapterError(f'adapter "{name}" is not loaded; loaded: {", ".join(self.names) or "none"}')
        return found

    def prepare(self, name: str, folder: Path) -> LoadedAdapter:
        """Read and pack an adapter that nobody can ask for yet; any thread may do that while the engine runs.

        `InputError` for a bad name or an adapter that cannot be used.
        """
        if not name or len(name) > _LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{name!r} is no name for an adapter; it must be 1 to {_LONGEST_NAME} printable characters"
            )
        if len(self._by_name) >= _MOST:
            raise InputError(f"{_MOST} adapters are loaded, which is all that may be; unload one first")
        parts = read_adapter(folder, self._shape)
        adapter = LoadedAdapter(name, folder, self._decoder.add_adapter())
        try:
            for module, low in parts.items():
                self._decoder.set_adapter(
                    adapter.number, f"{module}.weight", low.a_RI, low.b_OR, low.scale, self._exact
                )
        except BaseException:
            self._decoder.remove_adapter(adapter.number)
            raise
        return adapter

    def register(self, adapter: LoadedAdapter, *, replace: bool = False) -> LoadedAdapter | None:
        """Let requests ask for a prepared adapter; with `replace` in place of one of its name, which is returned.

        `InputError` when the name is taken; the prepared one is freed then.
        """
        older = self._by_name.get(adapter.name)
        if older is not None and not replace:
            self._decoder.remove_adapter(adapter.number)
            raise InputError(f'adapter "{adapter.name}" is loaded already, from {older.path}; unload it first')
        if older is not None:
            self.unload(adapter.name)
        self._by_name[adapter.name] = adapter
        return older

    def unload(self, name: str) -> LoadedAdapter:
        """Refuse new requests for the adapter; its memory is free when the last request under it ends."""
        adapter = self.find(name)
        del self._by_name[name]
        adapter.leaving = True
        self._free_if_done(adapter)
        return adapter

    def hold(self, adapter: LoadedAdapter | None) -> None:
        """A request begins under it."""
        if adapter is not None:
            adapter.num_requests += 1

    def release(self, adapter: LoadedAdapter | None) -> None:
        """A request under it ended."""
        if adapter is not None:
            adapter.num_requests -= 1
            self._free_if_done(adapter)

    def _free_if_done(self, adapter: LoadedAdapter) -> None:
        if adapter.leaving and adapter.num_requests == 0:
            self._decoder.remove_adapter(adapter.number)
