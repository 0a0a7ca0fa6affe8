"""Floor 7, ghost text: what of a model's fill-in may be shown, as pure functions on text.

A model that fills a middle runs on past it: into the suffix, into loops, out of the block. `clean` cuts where a person
would have stopped typing and gives "" where nothing is worth showing; `Cleaner` does the same while the text is still
coming, and tells when to stop generating. Knows no model and no editor. The rules are those that llama.vscode, Tabby,
Continue and Copilot converged on.
"""

from __future__ import annotations

import re

__all__ = ["Cleaner", "clean"]

_SPECIAL = re.compile(
    r"<\|[a-z_▁]+\|>|<\uff5c[^\uff5c]*\uff5c>|</?(?:fim_prefix|fim_suffix|fim_middle|fim_pad|file_sep|repo_name|s)>"
    r"|<(?:PRE|SUF|MID|EOT)>|\[(?:PREFIX|SUFFIX|MIDDLE)\]"
)
_FENCE = re.compile(r"\A\s*```[\w+-]*[ \t]*\n")
_WORD = re.compile(r"\w+|[^\w\s]")
_PAIRS = {")": "(", "]": "[", "}": "{"}
_LOOPS = ((1, 10), (10, 30), (20, 45), (30, 60))  # (longest period, in this many last words)
_CONTEXT_LINES = 40


def clean(text: str, *, prefix: str, suffix: str, path: str | None = None) -> str:
    """The part of `text` to show between `prefix` and `suffix`, or "" for nothing."""
    before, after = prefix.replace("\r\n", "\n"), suffix.replace("\r\n", "\n")
    text = _unwrap(text, path)
    text = _cut_lines(text, before, after)
    text = _cut_overlap(text, after)
    text = text.rstrip() if "\n" in text or not after.split("\n", 1)[0].strip() else text.rstrip("\n")
    if _is_worthless(text, before, after):
        return ""
    return _restore_style(text, prefix)


class Cleaner:
    """`clean` for text that is still coming: whole lines are let through as soon as they are certain."""

    def __init__(self, *, prefix: str, suffix: str, path: str | None = None) -> None:
        self._prefix = prefix
        self._suffix = suffix
        self._path = path
        self._text = ""
        self._shown = ""
        self.ended = False

    def push(self, piece: str) -> str:
        """Take a piece, return what may be shown of it now; `ended` then says that no more is wanted."""
        self._text += piece
        if self.ended or "\n" not in piece:
            return ""
        whole = self._text[: self._text.rindex("\n") + 1]
        if len(whole.rstrip("\n").rsplit("\n", 1)[-1].strip()) <= 2:
            return ""  # whether a closing bracket repeats the one below is seen by the line after it
        kept = _unwrap(whole, self._path)
        cut = _cut_lines(kept, self._prefix.replace("\r\n", "\n"), self._suffix.replace("\r\n", "\n"))
        self.ended = len(cut.rstrip()) < len(kept.rstrip()) or _is_loop(kept) or _SPECIAL.search(whole) is not None
        return self._advance(clean(whole, prefix=self._prefix, suffix=self._suffix, path=self._path))

    def finish(self) -> str:
        """What is left to show at the end of the text."""
        return self._advance(clean(self._text, prefix=self._prefix, suffix=self._suffix, path=self._path))

    def _advance(self, cleaned: str) -> str:
        if not cleaned.startswith(self._shown):
            return ""
        new = cleaned[len(self._shown) :]
        self._shown = cleaned
        return new


def _unwrap(text: str, path: str | None) -> str:
    """The code alone: no fence, no name of the file, nothing past a special token."""
    return _strip_path_comment(_strip_fence(_cut_special(text.replace("\r\n", "\n"))), path)


def _cut_lines(text: str, before: str, after: str) -> str:
    """The cuts that stay whatever is said after them."""
    text = _cut_at_suffix_line(text, before, after)
    text = _cut_repeated_lines(text)
    text = _cut_block(text, before)
    return _cut_brackets(text, before)


def _cut_special(text: str) -> str:
    """What follows a special token belongs to another document."""
    found = _SPECIAL.search(text)
    return text if found is None else text[: found.start()]


def _strip_fence(text: str) -> str:
    """Chat-tuned models wrap code in a markdown fence."""
    found = _FENCE.match(text)
    if found is None:
        return text
    body = text[found.end() :]
    end = body.find("\n```")
    return body if end < 0 else body[:end]


def _strip_path_comment(text: str, path: str | None) -> str:
    """Models trained on repositories like to begin with the name of the file."""
    if path is None:
        return text
    first, newline, rest = text.partition("\n")
    name = path.rsplit("/", 1)[-1]
    named = re.fullmatch(
        r"\s*(?:#|//|--|/\*|<!--)\s*(?:(?:path|file)(?:name)?:\s*)?(\S+)\s*(?:\*/|-->)?\s*", first, re.I
    )
    return rest if newline and named is not None and named[1] in (path, name) else text


def _cut_at_suffix_line(text: str, before: str, after: str) -> str:
    """Stop before a line that stands right below the cursor already."""
    rest, _, below = after.partition("\n")
    next_line = next((line for line in below.split("\n") if line.strip()), "")
    if not next_line:
        return text
    wanted = next_line.strip()
    lines = text.split("\n")
    start = 1
    if not before.rsplit("\n", 1)[-1].strip() and not rest.strip():
        start = 0  # the completion's first line is a whole line
    for number in range(start, len(lines)):
        if lines[number].strip() != wanted:
            continue
        if len(wanted) > 2:
            return "\n".join(lines[:number])
        # A lone bracket says little: it must stand as deep as the one below, and go on as that does.
        if number and _indent(lines[number]) != _indent(next_line):
            continue
        if _same_lines(lines[number:], below):
            return "\n".join(lines[:number])
    return text


def _same_lines(lines: list[str], below: str) -> bool:
    """Whether two non-blank lines run alike, for lines as short as a bracket."""
    ours = [line.strip() for line in lines if line.strip()][:2]
    theirs = [line.strip() for line in below.split("\n") if line.strip()][:2]
    return ours == theirs[: len(ours)]


def _cut_repeated_lines(text: str) -> str:
    """Stop at the third time that a block of up to four lines is said in a row."""
    lines = text.split("\n")
    for size in range(1, 5):
        for start in range(len(lines) - 3 * size + 1):
            block = lines[start : start + size]
            if not "".join(block).strip():
                continue
            if all(lines[start + size * again : start + size * (again + 1)] == block for again in (1, 2)):
                return "\n".join(lines[: start + size])
    return text


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())


def _cut_block(text: str, before: str) -> str:
    """Stop where the text leaves the block that the cursor is in; a line of closing brackets still belongs to it."""
    lines = text.split("\n")
    current = before.rsplit("\n", 1)[-1]
    base = _indent(current + lines[0] if not current.strip() else current)
    if base == 0:
        return text
    for number, line in enumerate(lines[1:], start=1):
        if not line.strip() or _indent(line) >= base:
            continue
        if line.strip()[0] in ")]}":
            continue
        return "\n".join(lines[:number])
    return text


def _brackets(text: str) -> list[tuple[int, str]]:
    """Places of brackets outside of string literals that close on their line."""
    found = []
    quote = ""
    position = 0
    while position < len(text):
        character = text[position]
        if quote:
            if character == "\\":
                position += 1
            elif character == quote or character == "\n":
                quote = ""
        elif character in "\"'`":
            end = text.find(character, position + 1)
            line_end = text.find("\n", position)
            if end >= 0 and (line_end < 0 or end < line_end):
                quote = character
        elif character in "()[]{}":
            found.append((position, character))
        position += 1
    return found


def _cut_brackets(text: str, before: str) -> str:
    """Stop at a closing bracket that nothing opened, neither here nor shortly before the cursor."""
    recent = "\n".join(before.split("\n")[-_CONTEXT_LINES:])
    stack: list[str] = []
    for _, bracket in _brackets(recent):
        if bracket in "([{":
            stack.append(bracket)
        elif stack and stack[-1] == _PAIRS[bracket]:
            stack.pop()
    for position, bracket in _brackets(text):
        if bracket in "([{":
            stack.append(bracket)
        elif stack and stack[-1] == _PAIRS[bracket]:
            stack.pop()
        else:
            return text[:position]
    return text


def _cut_overlap(text: str, after: str) -> str:
    """Leave out an end that the rest of the line says again, such as a bracket the editor has closed already."""
    rest = after.split("\n", 1)[0]
    if not rest.strip():
        return text
    wanted = rest.strip()
    for size in range(min(len(text), len(wanted)), 0, -1):
        if not text.endswith(wanted[:size]) and not text.rstrip().endswith(wanted[:size]):
            continue
        if size < len(wanted) and any(character.isalnum() for character in wanted[:size]):
            continue  # half a word in common is chance
        return text.rstrip()[:-size]
    return text


def _is_worthless(text: str, before: str, after: str) -> bool:
    stripped = text.strip()
    if not stripped or _is_loop(stripped):
        return True
    rest, _, below = after.partition("\n")
    if rest.strip() and stripped == rest.strip():
        return True
    next_lines = "\n".join(line.strip() for line in below.split("\n") if line.strip())
    ours = "\n".join(line.strip() for line in text.split("\n") if line.strip())
    current, *_ = before.rsplit("\n", 1)[-1:]
    if not current.strip() and len(ours) > 2 and (next_lines + "\n").startswith(ours + "\n"):
        return True
    above = [line.strip() for line in before.split("\n")[:-1] if line.strip()]
    if not current.strip() and "\n" not in stripped and above and len(stripped) > 8:
        return _distance(stripped, above[-1]) < 0.1 * len(stripped)
    return False


def _is_loop(text: str) -> bool:
    """Whether the last words repeat with a short period (the border of Knuth, Morris and Pratt)."""
    words = _WORD.findall(text)[::-1]
    for period, length in _LOOPS:
        if len(words) < length:
            break
        last = words[:length]
        border = [0] * length
        for index in range(1, length):
            size = border[index - 1]
            while size and last[index] != last[size]:
                size = border[size - 1]
            border[index] = size + 1 if last[index] == last[size] else 0
        if length - border[-1] <= period:
            return True
    return False


def _distance(first: str, second: str) -> int:
    """Edits from one text to the other (Levenshtein 1966)."""
    row = list(range(len(second) + 1))
    for number, character in enumerate(first, start=1):
        previous, row[0] = row[0], number
        for column, other in enumerate(second, start=1):
            previous, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, previous + (character != other)),
            )
    return row[-1]


def _restore_style(text: str, prefix: str) -> str:
    """Tabs and line ends as the file has them."""
    if re.search(r"^\t", prefix, re.M) and not re.search(r"^ {2,}", prefix, re.M):
        head, *rest = text.split("\n")
        text = "\n".join([head, *(re.sub(r"^ +", lambda found: "\t" * (len(found[0]) // 4), line) for line in rest)])
    return text.replace("\n", "\r\n") if "\r\n" in prefix else text
