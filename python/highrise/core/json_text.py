"""Floor 0, JSON: bytes in, a struct out, and one kind of error for everything that may be wrong with them.

msgspec alone says `UnicodeDecodeError` of bytes that are not UTF-8 and `RecursionError` of brackets without end.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

__all__ = ["decode_json"]

T = TypeVar("T")


def decode_json(text: bytes, kind: type[T]) -> T:
    """`text` as `kind`; `msgspec.MsgspecError` when it is not UTF-8, not JSON, nested too deep or of another type."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it is not UTF-8 ({error.reason})") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deep") from error
