"""Floor 3, tree-sitter: syntax trees of code, by the name of the language. Knows nothing of what is looked for in them.

The grammars lie inside the wheel of tree-sitter-language-pack (below version 1); nothing is downloaded.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["GRAMMARS", "parse"]

_NAMES = "python javascript typescript tsx rust go java kotlin scala c cpp csharp swift ruby php lua bash"
GRAMMARS = frozenset(_NAMES.split())
"""Languages whose definitions `encode.chunk` knows."""


def parse(language: str, text: bytes) -> Any | None:
    """The root node of `text`; None for a language without a grammar. One caller at a time for a language."""
    parser = _parser(language)
    return None if parser is None else parser.parse(text).root_node


@functools.cache
def _parser(language: str) -> Any | None:
    if language not in GRAMMARS:
        return None
    from tree_sitter_language_pack import get_parser

    return get_parser(language)  # type: ignore[arg-type]
