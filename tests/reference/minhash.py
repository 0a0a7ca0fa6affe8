"""The slow and obvious twin of `rust/data`: every definition written out in Python integers, no rolling, no tables,
no skipping.

Clusters are the connected components of all accepted candidate pairs; every pair of texts is looked at.
"""

from __future__ import annotations

import functools
import math
from itertools import combinations

MASK = 2**64 - 1
K = (0x243F6A8885A308D3, 0x13198A2E03707345, 0xB7E151628AED2A6B, 0xBF7158809CF4F3C7)
M = 0xD6E8FEB86659FD93


def fold(left: int, right: int) -> int:
    product = left * right
    return (product & MASK) ^ (product >> 64)


def split_mix(seed: int, index: int) -> int:
    value = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def words(text: bytes) -> list[bytes]:
    found: list[bytes] = []
    open_word = b""
    at = 0
    while at < len(text):
        byte, whole = text[at], at + 2 < len(text)
        own = whole and 0xE3 <= byte <= 0xED
        separates = whole and byte == 0xE2 and text[at + 1] in (0x80, 0x81)
        is_word = byte >= 0x80 or byte == ord("_") or chr(byte).isalnum()
        if own or separates or not is_word:
            if open_word:
                found.append(open_word)
                open_word = b""
            if own:
                found.append(text[at : at + 3])
            at += 3 if own or separates else 1
        else:
            open_word += text[at : at + 1]
            at += 1
    return [*found, open_word] if open_word else found


def hash_word(word: bytes) -> int:
    value = len(word) * K[0] & MASK
    for start in range(0, len(word), 16):
        block = word[start : start + 16].ljust(16, b"\0")
        low, high = int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")
        value = fold(low ^ value ^ K[1], high ^ K[2])
    return value


@functools.lru_cache(4096)
def shingles(text: bytes) -> list[int]:
    hashes = [hash_word(word) for word in words(text)]
    if not hashes:
        return []
    runs = [hashes[i : i + 5] for i in range(max(len(hashes) - 4, 1))]
    return [sum(h * M ** (len(run) - 1 - i) for i, h in enumerate(run)) & MASK for run in runs]


def signature(text: bytes, num_perm: int = 128, seed: int = 0) -> list[int]:
    found = set(shingles(text))
    if not found:
        return [0] * num_perm
    places: list[tuple[int, int] | None] = [None] * num_perm
    for number in range(2 * num_perm):
        if None not in places:
            break
        key, factor = split_mix(seed, 2 * number), split_mix(seed, 2 * number + 1) | 1
        for shingle in found:
            value = fold(shingle ^ key, factor)
            place = ((value >> 48) * num_perm) >> 16 if number < num_perm else number - num_perm
            ranked = (number, value & (2**48 - 1))
            held = places[place]
            if held is None or ranked < held:
                places[place] = ranked
    return [fold((number << 48 | value) ^ K[3], K[0]) >> 32 for number, value in filter(None, places)]


def jaccard(left: bytes, right: bytes) -> float:
    a, b = set(shingles(left)), set(shingles(right))
    return len(a & b) / len(a | b) if a | b else 0.0


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    similarity = threshold + 0.25 * (1 - threshold)
    for rows in range(num_perm, 0, -1):
        if 1 - (1 - similarity**rows) ** (num_perm // rows) >= 0.99:
            return num_perm // rows, rows
    return num_perm, 1


def clusters(
    texts: list[bytes], threshold: float, num_perm: int = 128, seed: int = 0, verify: str = "borderline"
) -> list[int]:
    signatures = [signature(text, num_perm, seed) for text in texts]
    margin = {"estimate": 0.0, "borderline": 3 * math.sqrt(threshold * (1 - threshold) / num_perm), "exact": 2.0}[
        verify
    ]
    accept = math.ceil((threshold + margin) * num_perm)
    reject = max(math.ceil((threshold - margin) * num_perm), 0)
    bands, rows = choose_bands(threshold, num_perm)
    label = list(range(len(texts)))

    def near(i: int, j: int) -> bool:
        if texts[i] == texts[j]:
            return True
        if not words(texts[i]) or not words(texts[j]):
            return False
        a, b = signatures[i], signatures[j]
        if not any(a[k * rows : (k + 1) * rows] == b[k * rows : (k + 1) * rows] for k in range(bands)):
            return False
        equal = sum(x == y for x, y in zip(a, b, strict=True))
        return equal >= accept or (equal >= reject and jaccard(texts[i], texts[j]) >= threshold)

    for i, j in combinations(range(len(texts)), 2):
        if label[i] != label[j] and near(i, j):
            low, high = sorted((label[i], label[j]))
            label = [low if value == high else value for value in label]
    return label
