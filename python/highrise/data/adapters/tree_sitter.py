"""Floor 2, tree-sitter: syntax trees of code, by the name of the language. Knows nothing of what is looked for in them.

The grammars lie inside the wheel of tree-sitter-language-pack (below version 1); nothing is downloaded.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["GRAMMARS", "parse"]

_NAMES = "python javascript typescript tsx rust go java kotlin scala c cpp csharp swift ruby php lua bash html css json"
GRAMMARS = frozenset(_NAMES.split())
"""Languages that can be parsed."""

_ASCII_ONLY = frozenset({"bash"})
"""Grammars whose scanner asks C's `isalnum` about any code point, which reads far outside of its table: `{` and U+DF9F5
kill the process. They see a letter for each byte beyond ASCII; positions stay what they are. The other grammars of
`GRAMMARS` bore 40,000 random texts each."""
_LETTER_BEYOND_ASCII = bytes(range(128)) + b"x" * 128


def parse(language: str, text: bytes) -> Any | None:
    """The root node of `text`; None for a language without a grammar. One caller at a time for a language."""
    parser = _parser(language)
    if parser is None:
        return None
    return parser.parse(text.translate(_LETTER_BEYOND_ASCII) if language in _ASCII_ONLY else text).root_node


@functools.cache
def _parser(language: str) -> Any | None:
    if language not in GRAMMARS:
        return None
    from tree_sitter_language_pack import get_parser

    return get_parser(language)  # type: ignore[arg-type]
