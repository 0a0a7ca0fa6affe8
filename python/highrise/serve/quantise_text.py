"""Floor 6, quantise: the user's text, one part to calibrate with and another to judge by.

Knows nothing of weights: only of files and tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError

__all__ = ["cut_windows", "hold_out", "read_texts"]

_HELD_OUT = 10  # one file, or one part of the text, in so many


def read_texts(places: Sequence[str]) -> list[str]:
    """The UTF-8 texts of files, and of what lies in folders, in the order of their names; others are passed over there.

    `InputError` for a file that cannot be read, or when there is no text at all.
    """
    texts = []
    for place in places:
        path = Path(place)
        if not path.is_dir():
            try:
                texts.append(path.read_text(encoding="utf-8", errors="replace"))
            except OSError as error:
                raise InputError(f"cannot read the text {path}: {error.strerror or error}") from error
            continue
        for inner in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in inner.relative_to(path).parts)
            if inner.is_file() and not hidden and (text := _text_of(inner)):
                texts.append(text)
    if not any(texts):
        raise InputError(f"there is no text in {', '.join(places)}: give files, or folders with text files in them")
    return texts


def _text_of(path: Path) -> str:
    """The text of a file in a folder; "" for what is large or no text."""
    if path.stat().st_size > 1 << 20:
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if "\0" in text else text


def hold_out(texts: Sequence[str]) -> tuple[str, str]:
    """Text to calibrate with and text to judge by: every tenth file, or the last tenth where there are fewer."""
    if len(texts) >= _HELD_OUT:
        held = [text for index, text in enumerate(texts) if index % _HELD_OUT == _HELD_OUT - 1]
        return "".join(text for index, text in enumerate(texts) if index % _HELD_OUT != _HELD_OUT - 1), "".join(held)
    whole = "".join(texts)
    place = len(whole) - len(whole) // _HELD_OUT
    return whole[:place], whole[place:]


def cut_windows(ids: Sequence[int], window: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` windows of `window` tokens, (windows, window), spread evenly over `ids`.

    `InputError` when there is not one.
    """
    count = len(ids) // window
    if count == 0:
        raise InputError(f"the text has {len(ids)} tokens; at least one window of {window} is needed")
    whole = np.asarray(ids[: count * window], np.int64).reshape(count, window)
    chosen: npt.NDArray[np.int64] = whole[np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))]
    return chosen
