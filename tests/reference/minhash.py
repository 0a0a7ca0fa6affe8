"""The slow and obvious twin of `rust/data`: every definition written out in Python integers, no rolling, no tables,
no skipping.

Clusters are the connected components of all accepted candidate pairs, cut into stars; every pair of texts is looked at.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from itertools import combinations

MASK = 2**64 - 1
K = (0x243F6A8885A308D3, 0x13198A2E03707345, 0xB7E151628AED2A6B, 0xBF7158809CF4F3C7)
M = 0xD6E8FEB86659FD93
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


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


def characters(text: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(text):
        end = at + 1
        while text[at] >= 0xC0 and end < len(text) and end - at < 4 and text[end] & 0xC0 == 0x80:
            end += 1
        found.append(text[at:end])
        at = end
    return found


def form(text: bytes, equal: str) -> bytes:
    """What two equal texts share."""
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        decoded = None
    if equal == "spaces":
        if decoded is None:
            return b" ".join(part for part in re.split(rb"[ \t\n\r\f]", text) if part)
        return " ".join(re.split(f"[{WHITE_SPACE}]+", decoded)).strip(" ").encode()
    if equal == "words":
        lower = text.lower() if decoded is None else "".join(c.lower() for c in decoded).encode()
        return b" ".join(words(lower))
    return text


@functools.lru_cache(4096)
def shingles(text: bytes, shingle: str = "5 words", equal: str = "bytes") -> list[int]:
    length, unit = int(shingle.split()[0]), shingle.split()[1]
    text = form(text, equal)
    if unit.startswith("word"):
        hashes = [hash_word(word) for word in words(text)]
    else:
        hashes = [fold(int.from_bytes(character) ^ K[1], K[2]) for character in characters(text)]
    if not hashes:
        return []
    runs = [hashes[i : i + length] for i in range(max(len(hashes) - length + 1, 1))]
    return [sum(h * M ** (len(run) - 1 - i) for i, h in enumerate(run)) & MASK for run in runs]


def signature(
    text: bytes, num_perm: int = 128, seed: int = 0, shingle: str = "5 words", equal: str = "bytes"
) -> list[int]:
    return signature_of(set(shingles(text, shingle, equal)), num_perm, seed)


def signature_of(found: set[int], num_perm: int = 128, seed: int = 0) -> list[int]:
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


def jaccard(left: bytes, right: bytes, shingle: str = "5 words", equal: str = "bytes") -> float:
    a, b = set(shingles(left, shingle, equal)), set(shingles(right, shingle, equal))
    return len(a & b) / len(a | b) if a | b else 0.0


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    similarity = threshold + 0.25 * (1 - threshold)
    for rows in range(num_perm, 0, -1):
        if 1 - (1 - similarity**rows) ** (num_perm // rows) >= 0.99:
            return num_perm // rows, rows
    return num_perm, 1


def content(text: bytes) -> tuple[int, int]:
    first, second = K[0] ^ len(text), K[1]

    def halves(block: bytes) -> tuple[int, int]:
        return int.from_bytes(block[:8], "little"), int.from_bytes(block[8:], "little")

    def rotate(value: int, places: int) -> int:
        return (value << places | value >> (64 - places)) & MASK

    whole = len(text) // 16 * 16
    for start in range(0, whole, 16):
        low, high = halves(text[start : start + 16])
        first = fold(first ^ low, high ^ K[2]) + rotate(first, 29) & MASK
        second = fold(second ^ high, low ^ K[3]) + rotate(second, 31) & MASK
    low, high = halves(text[whole:].ljust(16, b"\0"))
    return fold(first ^ low, high ^ K[2]), fold(second ^ high, low ^ K[3])


def stars(signatures: list[list[int]], contents: list[tuple[int, int]], floor: int) -> list[int]:
    """For each member of a component the position of its representative."""
    by_content = sorted(range(len(signatures)), key=contents.__getitem__)
    typical = []
    for column in zip(*signatures, strict=True):
        counted = Counter(column)
        typical.append(min(value for value, count in counted.items() if count == max(counted.values())))
    order = sorted(by_content, key=lambda i: -equal_places(signatures[i], typical))
    representatives: list[int] = []
    for i in order:
        if all(equal_places(signatures[i], signatures[other]) < floor for other in representatives):
            representatives.append(i)
    return [
        i if i in representatives else max(representatives, key=lambda r: equal_places(signatures[i], signatures[r]))
        for i in range(len(signatures))
    ]


def equal_places(left: list[int], right: list[int]) -> int:
    return sum(a == b for a, b in zip(left, right, strict=True))


def clusters(
    texts: list[bytes],
    threshold: float,
    num_perm: int = 128,
    seed: int = 0,
    verify: str = "borderline",
    shingle: str = "5 words",
    equal: str = "bytes",
    slack: float | None = 0.03,
) -> list[int]:
    forms = [form(text, equal) for text in texts]
    signatures = [signature(text, num_perm, seed, shingle, equal) for text in texts]
    empty = [not shingles(text, shingle, equal) for text in texts]
    deviation = math.sqrt(threshold * (1 - threshold) / num_perm)
    margin = {"none": 0.0, "estimate": 0.0, "borderline": 2 * deviation, "exact": 2.0}[verify]
    accept = 0 if verify == "none" else math.ceil((threshold + margin) * num_perm)
    reject = max(math.ceil((threshold - margin) * num_perm), 0)
    bands, rows = choose_bands(threshold, num_perm)
    label = list(range(len(texts)))

    def near(i: int, j: int) -> bool:
        if forms[i] == forms[j]:
            return True
        if empty[i] or empty[j]:
            return False
        a, b = signatures[i], signatures[j]
        if not any(a[k * rows : (k + 1) * rows] == b[k * rows : (k + 1) * rows] for k in range(bands)):
            return False
        same = equal_places(a, b)
        return same >= accept or (same >= reject and jaccard(texts[i], texts[j], shingle, equal) >= threshold)

    for i, j in combinations(range(len(texts)), 2):
        if label[i] != label[j] and near(i, j):
            low, high = sorted((label[i], label[j]))
            label = [low if value == high else value for value in label]
    if slack is None:
        return label
    floor = max(math.ceil((threshold - slack) * num_perm), 0)
    final = list(label)
    for root in set(label):
        members = [i for i in range(len(texts)) if label[i] == root and forms[i] not in forms[:i]]
        if len(members) < 3:
            continue
        nearest = stars([signatures[i] for i in members], [content(forms[i]) for i in members], floor)
        first = {star: min(i for i, n in zip(members, nearest, strict=True) if n == star) for star in set(nearest)}
        for i in range(len(texts)):
            if label[i] == root:
                final[i] = first[nearest[members.index(forms.index(forms[i]))]]
    return final
