"""Floor 0, GGUF rewritten: the same file with other blocks in some tensors. Metadata is copied byte for byte.

Knows nothing of how blocks are made.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from highrise.core.blocks import BLOCKS, GGML_TYPES
from highrise.core.files import atomic_write
from highrise.core.gguf import Gguf

__all__ = ["rewrite_gguf"]

_NUMBERS = {name: number for number, name in GGML_TYPES.items()}


def rewrite_gguf(
    source: Gguf, path: Path, types: Mapping[str, str], blocks: Callable[[str], npt.NDArray[np.uint8]]
) -> None:
    """Write `source` to `path`, atomically, with each tensor of `types` as the blocks of that type that `blocks` gives.

    Tensors come one after another, so one at a time is in memory. `OSError`s become `InputError`s.
    """
    alignment = source.metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)
    header = bytearray(source.header())
    sizes, at = {}, 0
    for name, tensor in source.tensors.items():
        kind = types.get(name, tensor.type)
        block = BLOCKS[kind]
        sizes[name] = math.prod(tensor.shape) // block.weights * block.num_bytes
        encoded = name.encode()
        header += struct.pack("<Q", len(encoded)) + encoded + struct.pack("<I", len(tensor.shape))
        header += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape[::-1])
        header += struct.pack("<IQ", _NUMBERS[kind], at)
        at += -(-sizes[name] // alignment) * alignment
    header += bytes(-len(header) % alignment)
    with atomic_write(path) as file:
        file.write(header)
        for name in source.tensors:
            content = blocks(name) if name in types else source.read(name)
            assert content.nbytes == sizes[name], f"{name} has {content.nbytes} bytes, not {sizes[name]}"
            file.write(np.ascontiguousarray(content).data)
            file.write(bytes(-sizes[name] % alignment))
