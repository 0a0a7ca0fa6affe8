"""Floor 0, GGUF: reads metadata and tensors of a GGUF file, versions 2 and 3, memory-mapped.

Tensors stay as the blocks that lie in the file; `core/blocks.py` turns blocks into float32. Knows no architectures.
Layout: ggml's `docs/gguf.md`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from weakref import WeakValueDictionary

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.blocks import BLOCKS, GGML_TYPES
from highrise.core.errors import InputError

__all__ = ["Gguf", "GgufTensor", "open_gguf"]

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "<u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_BOOL = 7
_MAX_DIMENSIONS = 4


class GgufTensor(msgspec.Struct, frozen=True, kw_only=True):
    """Where one tensor lies: `shape` is (rows, columns), slowest axis first; `offset` counts from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    num_bytes: int


def open_gguf(path: Path) -> Gguf:
    """Open a GGUF file, or share it with whoever holds the same unchanged file. Raises like `Gguf`.

    Weights, vocabulary and chat template are asked for apart, and each reading takes 300,000 strings of metadata.
    """
    try:
        found = path.stat()
    except OSError:
        return Gguf(path)
    key = (str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    file = _OPEN.get(key)
    if file is None:
        _OPEN[key] = file = Gguf(path)
    return file


class Gguf:
    """An open GGUF file: `metadata` as Python values, `tensors` by name, `read` for the bytes of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the weights {path}: {error}") from error
        self._view = memoryview(self._bytes.data)
        self._at = 0
        self.metadata: dict[str, object] = {}
        self.tensors: dict[str, GgufTensor] = {}
        self._metadata_end = 0
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError) as error:
            raise self._truncated("the header ends early") from error

    def read(self, name: str) -> npt.NDArray[np.uint8]:
        """The blocks of one tensor: uint8, contiguous, read-only, backed by the file."""
        tensor = self.tensors[name]
        return self._bytes[tensor.offset : tensor.offset + tensor.num_bytes]

    def header(self) -> bytes:
        """The file up to where the metadata ends and the list of tensors begins."""
        return bytes(self._view[: self._metadata_end])

    def _truncated(self, what: str) -> InputError:
        return InputError(
            f"{self.path} is not a whole GGUF file ({what}; it has {len(self._bytes):,} bytes): fetch it again"
        )

    def _read_header(self) -> None:
        if bytes(self._view[:4]) != _MAGIC:
            raise InputError(f"{self.path} is not a GGUF file: it does not begin with the letters GGUF")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise InputError(f"{self.path} has GGUF version {version}; versions 2 and 3 are read")
        num_tensors, num_entries = self._scalar("<Q"), self._scalar("<Q")
        for _ in range(num_entries):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("<I"))
        self._metadata_end = self._at
        headers = [self._tensor_header() for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise InputError(f"{self.path} says its alignment is {alignment!r}; a positive number is needed")
        start = -(-self._at // alignment) * alignment
        for name, shape, kind, offset in headers:
            self._add_tensor(name, shape, kind, start + offset)

    def _tensor_header(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        num_dimensions = self._scalar("<I")
        if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
            raise InputError(
                f"{self.path}: tensor {name} has {num_dimensions} dimensions; 1 to {_MAX_DIMENSIONS} are read"
            )
        shape = tuple(self._scalar("<Q") for _ in range(num_dimensions))[::-1]
        return name, shape, self._scalar("<I"), self._scalar("<Q")

    def _add_tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> None:
        if kind not in GGML_TYPES:
            raise InputError(f"{self.path}: tensor {name} has the unknown type number {kind}")
        block = BLOCKS[GGML_TYPES[kind]]
        count = math.prod(shape)
        if shape[-1] % block.weights:
            raise InputError(
                f"{self.path}: the rows of {name} have {shape[-1]} weights, no multiple of a block's {block.weights}"
            )
        num_bytes = count // block.weights * block.num_bytes
        if offset + num_bytes > len(self._bytes):
            raise self._truncated(f"tensor {name} ends at byte {offset + num_bytes:,}")
        self.tensors[name] = GgufTensor(
            name=name, shape=shape, type=GGML_TYPES[kind], offset=offset, num_bytes=num_bytes
        )

    def _scalar(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._view, self._at)
        self._at += struct.calcsize(form)
        return int(value)

    def _string(self) -> str:
        length = self._scalar("<Q")
        end = self._at + length
        if end > len(self._view):
            raise self._truncated(f"a string of {length:,} bytes")
        text = str(self._view[self._at : end], "utf-8")
        self._at = end
        return text

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise InputError(f"{self.path}: metadata of the unknown type number {kind}")
        value = self._numbers(kind, 1)[0].item()
        return bool(value) if kind == _BOOL else value

    def _numbers(self, kind: int, count: int) -> npt.NDArray[np.generic]:
        dtype = np.dtype(_SCALARS[kind])
        end = self._at + count * dtype.itemsize
        if end > len(self._view):
            raise self._truncated(f"an array of {count:,} numbers")
        values: npt.NDArray[np.generic] = np.frombuffer(self._view[self._at : end], dtype=dtype)
        self._at = end
        return values

    def _array(self) -> list[object]:
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if kind in _SCALARS:
            return list(self._numbers(kind, count).tolist())
        if kind == _STRING:
            return list(self._strings(count))
        raise InputError(f"{self.path}: metadata holds an array of the unread type number {kind}")

    def _strings(self, count: int) -> list[str]:
        # The vocabulary: 300,000 strings. One tight loop over local names, four times as fast as calling _string.
        view, at, size = self._view, self._at, len(self._view)
        unpack = struct.Struct("<Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            begin = at + 8
            at = begin + unpack(view, at)[0]
            if at > size:
                raise self._truncated(f"an array of {count:,} strings")
            strings.append(str(view[begin:at], "utf-8"))
        self._at = at
        return strings


_OPEN: WeakValueDictionary[tuple[str, int, int, int, int], Gguf] = WeakValueDictionary()
