"""Byte-level BPE, slow and obvious.

Split by the published regular expressions, merge by looking at every pair, train by counting every pair again
after every merge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import regex

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
PATTERNS = {
    "gpt2": _GPT2,
    "cl100k": _CL100K,
    "llama3": _LLAMA3,
    "qwen2": _LLAMA3.replace("{1,3}", ""),
    "o200k": _O200K,
}

Token = tuple[int, ...]


def split(text: str, scheme: str) -> list[str]:
    """The pieces of a text under a pattern of this name."""
    if scheme == "smollm":
        parts = regex.findall(r"\p{N}|\P{N}+", text)
        return [piece for part in parts for piece in ([part] if part.isnumeric() else split(part, "gpt2"))]
    # `regex` lets `$` match before a last newline too; the published patterns mean the very end.
    pattern = PATTERNS[scheme].replace("++$", r"++\Z")
    return [found[0] for found in regex.finditer(pattern, text)]


def merge(piece: bytes, ranks: Mapping[tuple[bytes, bytes], int]) -> list[bytes]:
    """Merge the leftmost of the pairs with the lowest rank until no pair has one."""
    parts = [piece[index : index + 1] for index in range(len(piece))]
    while True:
        found = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not found:
            return parts
        _, at = min(found)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def encode(text: str, scheme: str, ranks: Mapping[tuple[bytes, bytes], int], ids: Mapping[bytes, int]) -> list[int]:
    """Token ids of a text."""
    return [ids[part] for piece in split(text, scheme) for part in merge(piece.encode(), ranks)]


def byte_order() -> list[int]:
    """The 256 bytes in the order of their characters in GPT-2's alphabet: the printable ones, then the others."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return printable + [byte for byte in range(256) if byte not in printable]


def train(texts: Iterable[str], scheme: str, *, vocabulary: int, min_count: int = 1) -> list[tuple[bytes, bytes]]:
    """The merges of a vocabulary without special tokens, in the order they are learned."""
    words = Counter(piece.encode() for text in texts for piece in split(text, scheme))
    tokens = [bytes([byte]) for byte in byte_order()]
    ids = {token: index for index, token in enumerate(tokens)}
    state = {word: [bytes([byte]) for byte in word] for word in words}
    merges: list[tuple[bytes, bytes]] = []
    while len(tokens) < vocabulary:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in state.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        if pairs[best] < min_count:
            break
        merges.append(best)
        joined = best[0] + best[1]
        if joined not in ids:
            ids[joined] = len(tokens)
            tokens.append(joined)
        state = {word: _merge_all(parts, best) for word, parts in state.items()}
    return merges


def _merge_all(parts: Sequence[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    merged: list[bytes] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
            # A token that was just merged is not the left side of the next pair in the same pass.
            merged.append(b"")
        else:
            merged.append(part)
    return [part for part in merged if part]
