"""Floor 0, packed int4: the matrices of AWQ and GPTQ folders as GGML blocks, without a rounding.

Both keep int32 words of eight 4-bit codes with a scale and a zero for each group of columns and each row:
weight = scale * (code - zero). Zeros that are all 8 make Q4_0 blocks; others make Q5_0, whose five bits hold
code - zero (-16 to 15), where Q4_1 would have to round scale * zero. GPTQ with columns in the order of their importance
(`desc_act`) mixes groups within a block, so it becomes float32. Layouts: AutoAWQ's `utils/packing_utils.py` and
AutoGPTQ's `qlinear_cuda.py`. Knows nothing of decoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.safetensors import SafeTensors
from highrise.core.tensor import Tensor

__all__ = ["Packing", "packing_of", "unpacked"]

_BLOCK = 32
_IN_A_WORD = 8
_AWQ_ORDER = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""The nibble that holds each of eight neighbouring columns."""


class Packing(msgspec.Struct, frozen=True):
    """How a folder is packed. `group` is in columns, -1 for whole rows; `zeros_from_one`: zero - 1 is stored."""

    method: Literal["awq", "gptq"]
    group: int
    zeros_from_one: bool


def packing_of(config: Mapping[str, object], *, where: str) -> Packing | None:
    """What `quantization_config` says; None without one. `InputError` for another method or width, by name."""
    settings = config.get("quantization_config")
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        raise InputError(f"{where} has the quantization_config {settings!r}; a table is needed")
    method, bits, group = settings.get("quant_method"), settings.get("bits"), settings.get("group_size", 128)
    if method not in ("awq", "gptq") or bits != 4:
        raise InputError(f"{where} is quantised by {method!r} to {bits} bits; awq and gptq at 4 bits are read")
    if not isinstance(group, int) or (group != -1 and (group < 1 or group % _BLOCK)):
        raise InputError(f"{where} has the group_size {group!r}; a multiple of {_BLOCK}, or -1, is read")
    version = str(settings.get("version", "gemm")).lower()
    if method == "awq" and version != "gemm":
        raise InputError(f"{where} is packed for AWQ's version {version!r}; gemm is read")
    form = settings.get("checkpoint_format", "gptq")
    if method == "gptq" and form not in ("gptq", "gptq_v2"):
        raise InputError(f"{where} has the checkpoint_format {form!r}; gptq and gptq_v2 are read")
    return Packing("awq" if method == "awq" else "gptq", group, method == "gptq" and form == "gptq")


def unpacked(file: SafeTensors, packing: Packing) -> dict[str, Tensor]:
    """Every packed matrix of a file under the name that it would have unpacked (`...weight`)."""
    suffix = ".qweight"
    stems = [name.removesuffix(suffix) for name in file.tensors if name.endswith(suffix)]
    return {f"{stem}.weight": _PackedTensor(stem, file, packing) for stem in stems}


class _PackedTensor(Tensor):
    def __init__(self, stem: str, file: SafeTensors, packing: Packing) -> None:
        self._stem, self._file, self._packing = stem, file, packing
        words = self._words("qweight")
        if packing.method == "awq":
            cols, rows = words.shape[0], words.shape[1] * _IN_A_WORD
        else:
            cols, rows = words.shape[0] * _IN_A_WORD, words.shape[1]
        self.name, self.shape = f"{stem}.weight", (rows, cols)
        self._group = cols if packing.group == -1 else packing.group
        groups = -(-cols // self._group)
        zeros, scales = self._words("qzeros"), self._part("scales", ("F16", "BF16", "F32"))
        if zeros.shape != (groups, rows // _IN_A_WORD) or scales.shape != (groups, rows) or cols % self._group:
            raise InputError(
                f"{file.path}: {stem} of {rows} x {cols} in groups of {self._group} has qzeros {zeros.shape} and "
                f"scales {scales.shape}"
            )
        exact = np.array_equal(scales, scales.astype(np.float16).astype(np.float32))
        if self._is_mixed() or not exact or self._group % _BLOCK:
            self.type = "F32"
        else:
            self.type = "Q4_0" if np.all(self._zeros() == 8) else "Q5_0"

    def raw(self) -> npt.NDArray[np.uint8]:
        if self.type == "F32":
            return self._values().reshape(-1).view(np.uint8)
        codes = self._codes()
        if self.type == "Q5_0":
            codes = codes + 16 - np.repeat(self._zeros(), self._group, axis=1)
        blocks: npt.NDArray[np.uint8] = codes.astype(np.uint8).reshape(-1, _BLOCK)
        scales = np.repeat(self._scales(), self._group // _BLOCK, axis=1).astype(np.float16).reshape(-1, 1)
        nibbles = (blocks[:, :16] & 15) | (blocks[:, 16:] << np.uint8(4))
        parts = [scales.view(np.uint8), nibbles]
        if self.type == "Q5_0":
            parts.insert(1, np.packbits(blocks > 15, axis=1, bitorder="little"))
        return np.ascontiguousarray(np.concatenate(parts, axis=1)).reshape(-1)

    def dequantise(self) -> npt.NDArray[np.float32]:
        return self._values()

    def _values(self) -> npt.NDArray[np.float32]:
        group_of = self._group_of_column()
        values: npt.NDArray[np.float32] = self._scales()[:, group_of] * (self._codes() - self._zeros()[:, group_of])
        return values.astype(np.float32)

    def _group_of_column(self) -> npt.NDArray[np.integer]:
        name = f"{self._stem}.g_idx"
        if self._packing.method == "awq" or name not in self._file.tensors:
            return np.arange(self.shape[1]) // self._group
        groups = np.asarray(self._file.read(name)).astype(np.int64)
        most = -(-self.shape[1] // self._group)
        if groups.shape != (self.shape[1],) or groups.min() < 0 or groups.max() >= most:
            raise InputError(f"{self._file.path}: {name} must name one of {most} groups for {self.shape[1]} columns")
        return groups

    def _is_mixed(self) -> bool:
        return not np.array_equal(self._group_of_column(), np.arange(self.shape[1]) // self._group)

    def _part(self, part: str, dtypes: tuple[str, ...]) -> npt.NDArray[np.generic]:
        name = f"{self._stem}.{part}"
        stored = self._file.tensors.get(name)
        if stored is None or stored.dtype not in dtypes or len(stored.shape) != 2:
            found = "is missing" if stored is None else f"is {stored.dtype} of shape {stored.shape}"
            raise InputError(f"{self._file.path}: {name} {found}; a matrix of {' or '.join(dtypes)} is needed")
        return self._file.read(name)

    def _words(self, part: str) -> npt.NDArray[np.uint32]:
        return self._part(part, ("I32",)).view(np.uint32)

    def _scales(self) -> npt.NDArray[np.float32]:
        """(rows, groups)."""
        return np.ascontiguousarray(self._part("scales", ("F16", "BF16", "F32")).astype(np.float32).T)

    def _zeros(self) -> npt.NDArray[np.int16]:
        """(rows, groups)."""
        zeros = self._across(self._words("qzeros"))
        return zeros + np.int16(self._packing.zeros_from_one)

    def _codes(self) -> npt.NDArray[np.int16]:
        """(rows, cols), 0 to 15."""
        words = self._words("qweight")
        if self._packing.method == "awq":
            return self._across(words)
        nibbles = _nibbles(words)  # (cols / 8, rows, 8)
        return np.ascontiguousarray(nibbles.transpose(1, 0, 2)).reshape(self.shape)

    def _across(self, words: npt.NDArray[np.uint32]) -> npt.NDArray[np.int16]:
        """Words (n, rows / 8) whose nibbles lie along the rows of the weight -> (rows, n)."""
        nibbles = _nibbles(words)
        if self._packing.method == "awq":
            nibbles = nibbles[..., _AWQ_ORDER]
        return np.ascontiguousarray(nibbles.reshape(len(words), -1).T)


def _nibbles(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.int16]:
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    return ((words[..., None] >> shifts) & np.uint32(15)).astype(np.int16)
