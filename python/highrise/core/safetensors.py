"""Floor 0, safetensors: reads and writes the format, memory-mapped, without torch.

Values are raw bytes with a type and a shape; bfloat16 has no numpy type, so it is read as its bits or as float32.
Layout: eight bytes of header length, a JSON header, the data (huggingface/safetensors README).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.core.json_text import decode_json

__all__ = ["SafeTensor", "SafeTensors", "write_safetensors"]

_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_NAMES = {np.dtype(dtype).str: name for name, dtype in _DTYPES.items()}
_MAX_HEADER = 100_000_000


class SafeTensor(msgspec.Struct, frozen=True):
    """One entry of the header: type, shape, and begin and end of its bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class SafeTensors:
    """An open safetensors file: `tensors` by name, `metadata`, `raw` and `read` for the values of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the weights {path}: {error}") from error
        if len(self._bytes) < 8:
            raise self._damaged("shorter than eight bytes")
        (length,) = struct.unpack("<Q", self._bytes[:8].tobytes())
        if length > min(_MAX_HEADER, len(self._bytes) - 8):
            raise self._damaged(f"its header says it has {length:,} bytes")
        try:
            header = decode_json(self._bytes[8 : 8 + length].tobytes(), dict[str, msgspec.Raw])
            self.metadata = decode_json(header.pop("__metadata__", b"{}"), dict[str, str])
            self.tensors = {name: decode_json(raw, SafeTensor) for name, raw in header.items()}
        except msgspec.MsgspecError as error:
            raise self._damaged(f"its header cannot be read: {error}") from error
        self._start = 8 + length
        for name, tensor in self.tensors.items():
            self._check(name, tensor)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of one tensor: uint8, contiguous, read-only, backed by the file."""
        begin, end = self.tensors[name].data_offsets
        return self._bytes[self._start + begin : self._start + end]

    def read(self, name: str) -> npt.NDArray[np.generic]:
        """One tensor in its own type and shape; bfloat16 becomes float32."""
        tensor = self.tensors[name]
        if tensor.dtype == "BF16":
            bits = np.ascontiguousarray(self.raw(name)).view(np.uint16).astype(np.uint32) << np.uint32(16)
            return bits.view(np.float32).reshape(tensor.shape)
        return np.ascontiguousarray(self.raw(name)).view(_DTYPES[tensor.dtype]).reshape(tensor.shape)

    def _check(self, name: str, tensor: SafeTensor) -> None:
        if tensor.dtype not in _SIZES:
            raise InputError(f"{self.path}: tensor {name} has the type {tensor.dtype}, which is not read")
        begin, end = tensor.data_offsets
        if not 0 <= begin <= end <= len(self._bytes) - self._start:
            raise self._damaged(f"tensor {name} ends at byte {end:,} of the data")
        if end - begin != math.prod(tensor.shape) * _SIZES[tensor.dtype]:
            raise self._damaged(f"tensor {name} of shape {tensor.shape} has {end - begin:,} bytes")

    def _damaged(self, what: str) -> InputError:
        return InputError(
            f"{self.path} is not a whole safetensors file ({what}; it has {len(self._bytes):,} bytes): fetch it again"
        )


def write_safetensors(
    path: Path,
    tensors: Mapping[str, npt.NDArray[np.generic]],
    *,
    metadata: Mapping[str, str] | None = None,
    uint16_is: Literal["BF16"] | None = None,
) -> None:
    """Write arrays under their names, atomically; with `uint16_is` "BF16", uint16 arrays are bfloat16 bits."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, array in tensors.items():
        dtype = uint16_is if array.dtype == np.uint16 and uint16_is else _NAMES[array.dtype.newbyteorder("<").str]
        header[name] = SafeTensor(dtype, array.shape, (at, at + array.nbytes))
        at += array.nbytes
    encoded = msgspec.json.encode(header)
    encoded += b" " * (-len(encoded) % 8)
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).data)
