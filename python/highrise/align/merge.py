"""Floor 5, merge: base weights with an adapter added, as a Hugging Face folder for any tool.

The sum is made in float32 and rounded once. Knows nothing of how the adapter came to be.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from highrise.align.lora import load_adapter, merge_adapter
from highrise.train.weights_io import load_decoder, save_decoder

__all__ = ["merge"]


def merge(base: Path, adapter: Path, out: Path, *, dtype: Literal["float32", "bfloat16"] = "bfloat16") -> None:
    """Write `out` from `base` (GGUF file or folder) and an adapter folder; the tokenizer's files come from `base`."""
    decoder = load_decoder(base)
    load_adapter(decoder, adapter)
    merge_adapter(decoder)
    save_decoder(decoder, out, tokenizer_files_from=base, dtype=dtype)
