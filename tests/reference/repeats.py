"""The slow and obvious twins of `rust/data/spans` and `lines`: every window and every line looked up in a dict."""

from __future__ import annotations

from collections import Counter


def covered(texts: list[bytes], length: int) -> list[list[bool]]:
    """For each byte of each text whether it lies in a window of `length` bytes that stood before without overlap."""
    seen: dict[bytes, list[tuple[int, int]]] = {}
    found = []
    for number, text in enumerate(texts):
        marks = [False] * len(text)
        for start in range(len(text) - length + 1):
            window = text[start : start + length]
            places = seen.setdefault(window, [])
            if any(other < number or begin + length <= start for other, begin in places):
                marks[start : start + length] = [True] * length
            places.append((number, start))
        found.append(marks)
    return found


def lines(texts: list[bytes], more_than: int, min_bytes: int) -> list[tuple[int, int, int, int]]:
    """(text, start, end, texts) of each line that stands in more than `more_than` texts."""

    def cut(text: bytes) -> list[tuple[int, int, bytes]]:
        places, start = [], 0
        for line in text.split(b"\n"):
            end = min(start + len(line) + 1, len(text))
            bare = line.strip(b" \t\n\r\x0c")
            if len(bare) >= min_bytes:
                places.append((start, end, bare))
            start = end
        return places

    counts = Counter(line for text in texts for line in {bare for _, _, bare in cut(text)})
    return [
        (number, start, end, counts[bare])
        for number, text in enumerate(texts)
        for start, end, bare in cut(text)
        if counts[bare] > more_than
    ]
