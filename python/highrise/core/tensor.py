"""Floor 0, tensor: one weight matrix or norm as blocks of some type, and views that change which or what they hold.

Knows no files and no architectures.
"""

from __future__ import annotations

import abc

import numpy as np
import numpy.typing as npt

from highrise.core.blocks import dequantise

__all__ = ["FromOne", "Rows", "Tensor"]


class Tensor(abc.ABC):
    """A weight matrix (rows, columns) or vector (columns,), stored as blocks of `type`."""

    name: str
    shape: tuple[int, ...]
    type: str

    @abc.abstractmethod
    def raw(self) -> npt.NDArray[np.uint8]:
        """The stored blocks, row after row: uint8, contiguous."""

    def dequantise(self) -> npt.NDArray[np.float32]:
        """The values in float32, of `shape`."""
        return dequantise(self.raw(), self.type).reshape(self.shape)


class Rows(Tensor):
    """Some rows of a matrix or vector that holds several."""

    def __init__(self, name: str, whole: Tensor, first: int, count: int) -> None:
        self.name, self.type = name, whole.type
        self.shape = (count, *whole.shape[1:])
        self._whole, self._first = whole, first

    def raw(self) -> npt.NDArray[np.uint8]:  # noqa: D102 (Tensor says it)
        blocks = self._whole.raw()
        row = blocks.size // self._whole.shape[0]
        return blocks[self._first * row : (self._first + self.shape[0]) * row]


class FromOne(Tensor):
    """A norm that multiplies by one plus what is stored, as the numbers it multiplies by."""

    def __init__(self, stored: Tensor) -> None:
        self.name, self.shape, self.type = stored.name, stored.shape, "F32"
        self._stored = stored

    def raw(self) -> npt.NDArray[np.uint8]:  # noqa: D102 (Tensor says it)
        return (self._stored.dequantise() + np.float32(1)).reshape(-1).view(np.uint8)
