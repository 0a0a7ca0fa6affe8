"""Floor 2, syntax: whether a code file parses. Python through `ast`, other languages through tree-sitter's error nodes.

The grammars are inside the wheel of tree-sitter-language-pack; nothing is downloaded. Knows nothing of files.
"""

from __future__ import annotations

import ast
import functools
import warnings
from typing import Any

from highrise.data.config import CleaningConfig

__all__ = ["error_share", "is_broken"]

_GRAMMARS = frozenset(
    [
        "python",
        "javascript",
        "typescript",
        "tsx",
        "rust",
        "go",
        "java",
        "kotlin",
        "scala",
        "c",
        "cpp",
        "csharp",
        "swift",
        "ruby",
        "php",
        "lua",
        "bash",
        "html",
        "css",
        "json",
    ]
)
_LENIENT = frozenset({"c", "cpp", "bash", "html", "css", "php", "swift", "kotlin", "scala"})
"""Macros and dialects make correct files of these look wrong in places, so they may have ten times the error share."""


def is_broken(language: str, text: str, config: CleaningConfig) -> str | None:
    """Where a file fails to parse, or None; languages without a grammar are never called broken.

    Python that this interpreter refuses (an older or a newer dialect) is kept when tree-sitter finds no error in it.
    """
    if language == "python":
        problem = _python_problem(text)
        return problem if problem is not None and error_share(language, text) > 0 else None
    if language not in _GRAMMARS or language == "json":
        return None
    limit = config.max_syntax_error_share * (10 if language in _LENIENT else 1)
    share = error_share(language, text)
    return f"{share:.1%} of it inside syntax errors" if share > limit else None


def _python_problem(text: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(text)
        except SyntaxError as error:
            return f"line {error.lineno or 0}: {error.msg}"
        except (RecursionError, MemoryError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    return None


def error_share(language: str, text: str) -> float:
    """Share of the bytes that lie inside error nodes; a missing token counts as one byte. 0 without a grammar."""
    parser = _parser(language)
    if parser is None or not text:
        return 0.0
    data = text.encode()
    root = parser.parse(data).root_node
    if not root.has_error:
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


@functools.cache
def _parser(language: str) -> Any:
    if language not in _GRAMMARS:
        return None
    from tree_sitter_language_pack import get_parser

    return get_parser(language)  # type: ignore[arg-type]
