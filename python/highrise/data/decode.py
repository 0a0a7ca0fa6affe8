"""Floor 2, decode: from the bytes of a file to a normalised string, or the reason why there is none.

Byte order marks first, then UTF-8, then the encoding that a Python or Emacs cookie names, then Latin-1, which cannot
fail and is counted. Knows nothing of languages.
"""

from __future__ import annotations

import codecs
import re

__all__ = ["decode", "is_binary", "normalise"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COOKIE = re.compile(rb"coding[:=][ \t]*([-\w.]+)")
_CONTROL = bytes(set(range(32)) - {7, 8, 9, 10, 12, 13, 27}) + b"\x7f"
_HEAD = 8192


def is_binary(data: bytes, *, max_control_share: float) -> bool:
    """Git's rule (a NUL in the first 8 KiB), and a share of control characters; a byte order mark makes it text."""
    if any(data.startswith(mark) for mark, _ in _BOMS):
        return False
    head = data[:_HEAD].rstrip(b"\0")
    return b"\0" in head or len(head) - len(head.translate(None, _CONTROL)) > max_control_share * len(head)


def decode(data: bytes) -> tuple[str, str]:
    """The text and the encoding it was read as."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                text = data.decode(encoding, "replace")
                encoding += " with replacements"
            return text.removeprefix("\ufeff"), encoding
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    for line in data.split(b"\n", 2)[:2]:
        if match := _COOKIE.search(line):
            try:
                return data.decode(match[1].decode("ascii", "replace")), match[1].decode().lower()
            except (LookupError, UnicodeDecodeError):
                break
    return data.decode("latin-1"), "latin-1"


def normalise(text: str) -> str:
    """Newlines as "\\n", no NULs at the end, one newline at the end. Unicode is left as it is: code may need it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\0 \t\n")
    return text.encode("utf-8", "replace").decode("utf-8") + "\n" if text else ""
