"""Floor 3, encode. In: text. Out: token ids, packed token files, embeddings, a search index."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highrise.encode.tokenizer import Tokenizer as Tokenizer

__all__ = ["Tokenizer"]


def __getattr__(name: str) -> object:
    if name == "Tokenizer":
        from highrise.encode.tokenizer import Tokenizer

        return Tokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
