"""Floor 3, chunks: a document cut into the pieces that a search finds and shows.

Code is cut along its syntax tree: a function or a small class is one chunk with its comments and decorators, a large
class one chunk a method and one for its head; what lies between, and any other text, goes by windows that end at blank
lines or headings. Chunks of a document do not overlap and hold every line that is not blank. Knows nothing of indexes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from highrise.core.document import Document
from highrise.data.adapters import tree_sitter

__all__ = ["LANGUAGES", "Chunk", "chunk_document"]

LANGUAGES = tree_sitter.GRAMMARS - {"html", "css", "json"}
"""Languages that are cut along their definitions; the others have none."""

_NODES = {
    "python": "function_definition class_definition decorated_definition",
    "cpp": "function_definition class_specifier struct_specifier union_specifier enum_specifier namespace_definition "
    "template_declaration",
    "rust": "function_item struct_item enum_item union_item trait_item impl_item mod_item macro_definition",
    "typescript": "function_declaration generator_function_declaration class_declaration abstract_class_declaration "
    "method_definition interface_declaration enum_declaration type_alias_declaration internal_module",
    "go": "function_declaration method_declaration type_declaration",
    "java": "constructor_declaration record_declaration annotation_type_declaration",
    "csharp": "namespace_declaration struct_declaration",
    "kotlin": "object_declaration",
    "swift": "protocol_declaration init_declaration",
    "php": "trait_declaration",
    "scala": "object_definition trait_definition",
    "ruby": "module class method singleton_method",
}
_DEFINITIONS = frozenset(name for names in _NODES.values() for name in names.split())
"""Types of nodes that define something; a language also uses names that stand under another here."""
_FUNCTION_VALUES = frozenset({"arrow_function", "function_expression", "function", "class", "generator_function"})
_WRAPPERS = ("definition", "declaration", "declarator", "value")
_ATTACHED = frozenset(
    {"comment", "line_comment", "block_comment", "doc_comment", "attribute_item", "multiline_comment"}
)
_IDENTIFIERS = frozenset(
    {"simple_identifier", "type_identifier", "identifier", "field_identifier", "destructor_name", "operator_name"}
)
_HEADING = re.compile(r"#{1,6}\s+(.*\S)")
_WINDOW_LINES = 30
_SMALL_LINES = 5
_MAX_CHARACTERS = 6000
_MAX_DEPTH = 12


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Lines `start_line` to `end_line` (from 1, both inside) of a document."""

    path: str
    source: str
    language: str
    own: bool
    start_line: int
    end_line: int
    symbol: str
    """Name of what is defined here, with the names around it ("Cache.get"); a heading in Markdown; may be empty."""
    text: str


class _Span(msgspec.Struct):
    """Rows from 0, the end outside; `scope` is the symbol around it."""

    start: int
    end: int
    symbol: str
    scope: str
    defines: bool


def chunk_document(document: Document, *, max_lines: int = 60) -> list[Chunk]:
    """Cut a document; a definition of at most `max_lines` lines stays whole."""
    lines = document.text.split("\n")
    spans: Iterator[_Span] | None = None
    if document.language in LANGUAGES:
        root = tree_sitter.parse(document.language, document.text.encode("utf-8", "replace"))
        if root is not None:
            spans = _merge_small(
                _join_closers(_Cutter(lines, max_lines).cut(root.named_children, 0, len(lines), "", 0), lines)
            )
    if spans is None:
        headings = _headings(lines) if document.language == "markdown" else None
        spans = _windows(lines, 0, len(lines), "", headings)
    return [
        Chunk(
            path=document.path,
            source=document.source,
            language=document.language,
            own=document.own,
            start_line=span.start + 1,
            end_line=span.end,
            symbol=span.symbol,
            text="\n".join(lines[span.start : span.end]),
        )
        for span in spans
    ]


class _Cutter:
    """Walks a tree; owns nothing but the lines it looks at."""

    def __init__(self, lines: Sequence[str], max_lines: int) -> None:
        self.lines = lines
        self.max_lines = max_lines

    def cut(self, nodes: Sequence[Any], start: int, end: int, scope: str, depth: int) -> Iterator[_Span]:
        """Spans that cover rows `start` to `end`, whose syntax is `nodes`."""
        at = start
        attached, free = 0, -1  # first row of the comments right above, and the row after them
        for node in nodes:
            first, last = _rows(node, end)
            if node.type in _ATTACHED:
                attached = attached if first == free else first
                free = last
                continue
            head = attached if first == free else first
            inside = node.type in _DEFINITIONS or _defines_function(node)
            if last <= at or not (inside or (last - first > self.max_lines and depth < _MAX_DEPTH)):
                continue
            head = max(head if inside else first, at)
            yield from _windows(self.lines, at, head, scope)
            if inside:
                yield from self._definition(node, head, last, scope, depth)
            else:
                yield from self.cut(node.named_children, head, last, scope, depth + 1)
            at = last
        yield from _windows(self.lines, at, end, scope)

    def _definition(self, node: Any, start: int, end: int, scope: str, depth: int) -> Iterator[_Span]:
        name = _name(node)
        symbol = f"{scope}.{name}" if scope and name else scope or name
        size = sum(map(len, self.lines[start:end]))
        if end - start <= self.max_lines and size <= _MAX_CHARACTERS:
            yield _Span(start, end, symbol, scope, True)
        elif depth >= _MAX_DEPTH:
            yield from _windows(self.lines, start, end, symbol)
        else:
            yield from self.cut(_body(node), start, end, symbol, depth + 1)


def _rows(node: Any, end: int) -> tuple[int, int]:
    """First row of a node and the row after its last one."""
    first, (last, column) = node.start_point[0], node.end_point
    return first, min(end, max(first + 1, last + (1 if column else 0)))


def _defines_function(node: Any) -> bool:
    """`const f = () => ...`, `export ...`: a statement that gives a function or a class a name."""
    if node.type == "export_statement":
        inner = node.child_by_field_name("declaration") or node.child_by_field_name("value")
        return inner is not None and (
            inner.type in _DEFINITIONS or inner.type in _FUNCTION_VALUES or _defines_function(inner)
        )
    if node.type in ("lexical_declaration", "variable_declaration"):
        for child in node.named_children:
            value = child.child_by_field_name("value")
            if value is not None and value.type in _FUNCTION_VALUES:
                return True
    return False


def _name(node: Any) -> str:
    """What a definition is called; empty when it has no name."""
    for _ in range(8):
        if node.type == "qualified_identifier":
            return _text(node)
        named = node.child_by_field_name("name")
        if named is None and node.type == "impl_item":
            named = node.child_by_field_name("type")
        if named is not None:
            return _text(named)
        inner = next((found for field in _WRAPPERS if (found := node.child_by_field_name(field)) is not None), None)
        if inner is None and node.type in ("template_declaration", "type_declaration", "lexical_declaration"):
            inner = node.named_children[-1] if node.named_children else None
        if inner is None:
            if node.type in _IDENTIFIERS or node.type in (
                "qualified_identifier",
                "field_identifier",
                "destructor_name",
            ):
                return _text(node)
            return next((_text(child) for child in node.named_children if child.type in _IDENTIFIERS), "")
        node = inner
    return ""


def _text(node: Any) -> str:
    return " ".join(node.text.decode("utf-8", "replace").split())[:200]


def _body(node: Any) -> Sequence[Any]:
    """The parts of a definition among which further definitions are to be found."""
    for _ in range(8):
        body = node.child_by_field_name("body")
        if body is not None:
            parts: Sequence[Any] = body.named_children
            return parts
        inner = next((found for field in _WRAPPERS if (found := node.child_by_field_name(field)) is not None), None)
        if inner is None and node.type == "template_declaration":
            inner = node.named_children[-1]
        if inner is None:
            break
        node = inner
    holders = [child for child in node.named_children if child.type.endswith(("body", "block", "list", "statement"))]
    return [part for holder in holders for part in holder.named_children] or node.named_children


def _headings(lines: Sequence[str]) -> dict[int, str]:
    """Row and text of each Markdown heading outside fenced code."""
    found: dict[int, str] = {}
    fenced = False
    for row, line in enumerate(lines):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced and (match := _HEADING.match(line)):
            found[row] = match[1]
    return found


def _windows(
    lines: Sequence[str], start: int, end: int, symbol: str, headings: Mapping[int, str] | None = None
) -> Iterator[_Span]:
    """Rows without known structure, at most `_WINDOW_LINES` together, blank rows at both ends left out."""
    scope, headings = symbol, headings or {}
    while start < end:
        if not lines[start].strip():
            start += 1
            continue
        symbol = headings.get(start, symbol)
        stop, size, blank = start + 1, len(lines[start]), start
        while stop < end and stop not in headings and stop - start < _WINDOW_LINES:
            size += len(lines[stop])
            if size > _MAX_CHARACTERS:
                break
            if not lines[stop].strip():
                blank = stop
            stop += 1
        if stop < end and stop not in headings and blank - start >= _WINDOW_LINES // 2:
            stop = blank
        last = stop
        while not lines[last - 1].strip():
            last -= 1
        yield _Span(start, last, symbol, scope, False)
        start = stop


def _join_closers(spans: Iterator[_Span], lines: Sequence[str]) -> Iterator[_Span]:
    """Rows of closing brackets go with what they close."""
    held: _Span | None = None
    for span in spans:
        if held is not None:
            if not any(character.isalnum() for row in lines[span.start : span.end] for character in row):
                held.end = span.end
                continue
            yield held
        held = span
    if held is not None:
        yield held


def _merge_small(spans: Iterator[_Span]) -> Iterator[_Span]:
    """Neighbours of a few lines in one scope become one chunk: a row of getters is one find, not ten."""
    held: _Span | None = None
    for span in spans:
        small = span.end - span.start <= _SMALL_LINES
        if (
            held is not None
            and small
            and held.scope == span.scope
            and held.defines == span.defines
            and span.end - held.start <= _WINDOW_LINES
            and len(held.symbol) < 120
        ):
            symbol = f"{held.symbol}, {span.symbol}" if span.symbol and span.symbol != held.symbol else held.symbol
            held = msgspec.structs.replace(held, end=span.end, symbol=symbol)
            continue
        if held is not None:
            yield held
            held = None
        if small:
            held = span
        else:
            yield span
    if held is not None:
        yield held
