"""Floor 2, syntax: whether a code file parses. Python by a native recogniser, and where that is unsure by Python's own
parser (through `symtable`, which is spared building a tree); other languages through tree-sitter's error nodes.

Knows nothing of files.
"""

from __future__ import annotations

import symtable
import warnings

from highrise.core.native import rust
from highrise.data.adapters.tree_sitter import GRAMMARS, parse
from highrise.data.config import CleaningConfig

__all__ = ["error_share", "inspect", "is_broken"]

_LENIENT = frozenset({"c", "cpp", "bash", "html", "css", "php", "swift", "kotlin", "scala"})
"""Macros and dialects make correct files of these look wrong in places, so they may have ten times the error share."""


def inspect(language: str, text: str, config: CleaningConfig) -> tuple[str | None, float]:
    """Where a file fails to parse, or None, and the share of it inside errors; without a grammar nothing is called
    broken.

    Python that this interpreter refuses (an older or a newer dialect) is kept when tree-sitter finds no error in it.
    """
    if language == "python":
        problem = _python_problem(text)
        share = error_share(language, text) if problem is not None else 0.0
        return (problem if share > 0 else None), share
    if language not in GRAMMARS or language == "json":
        return None, 0.0
    limit = config.max_syntax_error_share * (10 if language in _LENIENT else 1)
    share = error_share(language, text)
    return (f"{share:.1%} of it inside syntax errors" if share > limit else None), share


def is_broken(language: str, text: str, config: CleaningConfig) -> str | None:
    """Where a file fails to parse, or None."""
    return inspect(language, text, config)[0]


def _python_problem(text: str) -> str | None:
    if rust.data.python_parses(text):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            symtable.symtable(text, "file", "exec")
        except SyntaxError as error:
            return f"line {error.lineno or 0}: {error.msg}"
        except (RecursionError, MemoryError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    return None


def error_share(language: str, text: str) -> float:
    """Share of the bytes that lie inside error nodes; a missing token counts as one byte. 0 without a grammar."""
    data = text.encode()
    root = parse(language, data)
    if root is None or not data or not root.has_error:
        return 0.0
    wrong, pending = 0, [root]
    while pending:
        node = pending.pop()
        if node.is_error:
            wrong += max(node.end_byte - node.start_byte, 1)
        elif node.is_missing:
            wrong += 1
        elif node.has_error:
            pending.extend(node.children)
    return min(1.0, wrong / len(data))
