"""Floor 3, vectors: embeddings of many texts within a time budget, in blocks that a killed run finds again.

A text is known by the hash of what is embedded, so equal texts are embedded once, and a later index takes over the
vectors of an earlier one. Knows nothing of chunks or of how vectors are searched.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.encode.minilm import Embedder, Floats

__all__ = ["Vectors", "embed_within_budget", "key_of", "read_vectors", "write_vectors"]

_BLOCK = 64
_KEY_BYTES = 16


class Vectors(msgspec.Struct):
    """Vectors by key: `keys` bytes (n, 16), `values` float32 (n, dimension)."""

    keys: list[bytes]
    values: Floats
    seconds: float = 0.0
    """Time spent on embedding, in killed runs too."""
    num_reused: int = 0
    """How many came from an earlier index."""


def key_of(text: str) -> bytes:
    """What a text is known by."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:_KEY_BYTES]


def embed_within_budget(
    embedder: Embedder,
    keys: Sequence[bytes],
    text: Callable[[int], str],
    *,
    budget: float,
    folder: Path,
    earlier: Vectors | None = None,
    advance: Callable[[int, float], None] = lambda count, seconds: None,
) -> Vectors:
    """Embed texts in the order of `keys` until `budget` seconds are spent; `text(i)` gives the i-th.

    Finished blocks and the time spent lie in `folder`; a later call with the same keys continues. Texts of `earlier`
    cost nothing. `advance` hears how many more are done, and the time spent.
    """
    known = {} if earlier is None else {key: row for row, key in enumerate(earlier.keys)}
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    reused = [key for key in first if key in known]
    wanted = sorted(index for key, index in first.items() if key not in known)
    folder.mkdir(parents=True, exist_ok=True)
    spent = _read_spent(folder)
    advance(len(reused), spent)
    done: list[int] = []
    blocks: list[Floats] = []
    for start in range(0, len(wanted), _BLOCK):
        block = wanted[start : start + _BLOCK]
        path = folder / f"{key_of(embedder.name + ':' + b''.join(keys[index] for index in block).hex()).hex()}.npy"
        values = _read_block(path, (len(block), embedder.dimension))
        if values is None:
            if spent >= budget:
                break
            started = time.monotonic()
            values = embedder.embed([text(index) for index in block])
            spent += time.monotonic() - started
            _save(path, values)
            with atomic_write(folder / "seconds") as file:
                file.write(str(spent).encode())
        blocks.append(values)
        done.extend(block)
        advance(len(block), spent)
    empty = np.zeros((0, embedder.dimension), np.float32)
    taken = empty if earlier is None else earlier.values[[known[key] for key in reused]]
    return Vectors(
        keys=[*reused, *(keys[index] for index in done)],
        values=np.concatenate([empty, taken, *blocks]),
        seconds=spent,
        num_reused=len(reused),
    )


def write_vectors(folder: Path, vectors: Vectors) -> None:
    """Write `keys.npy` and `vectors.npy`."""
    _save(folder / "vectors.npy", vectors.values)
    _save(folder / "keys.npy", np.frombuffer(b"".join(vectors.keys), np.uint8).reshape(-1, _KEY_BYTES))


def read_vectors(folder: Path) -> Vectors:
    """Open what `write_vectors` wrote; the values are memory-mapped."""
    try:
        keys = np.load(folder / "keys.npy")
        values = np.load(folder / "vectors.npy", mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"the vectors in {folder} are damaged ({error}); build the index again") from error
    return Vectors(keys=[row.tobytes() for row in keys], values=values)


def _save(path: Path, values: npt.NDArray[np.generic]) -> None:
    with atomic_write(path) as file:
        np.save(file, values)


def _read_block(path: Path, shape: tuple[int, int]) -> Floats | None:
    """A finished block; one that cannot be read is computed again."""
    if not path.exists():
        return None
    try:
        values: Floats = np.load(path)
    except (OSError, ValueError):
        return None
    return values if values.shape == shape and values.dtype == np.float32 else None


def _read_spent(folder: Path) -> float:
    try:
        return float((folder / "seconds").read_text())
    except (OSError, ValueError):
        return 0.0
