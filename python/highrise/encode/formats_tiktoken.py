"""Floor 3, formats_tiktoken: rank files, one base64 token and its rank a line.

A rank file names neither its split pattern nor its special tokens: the published ones are told by their sha256, any
other needs them as arguments. Knows nothing of merges.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

from highrise.core.catalogue import CACHE
from highrise.core.errors import InputError
from highrise.encode.config import MAX_IDS
from highrise.encode.formats import Special, VocabularyFile

__all__ = ["ENCODINGS", "NAMED", "read_named", "read_ranks", "write_ranks"]

_GPT2_SPECIALS = {"<|endoftext|>": 50256}

ENCODINGS: dict[str, tuple[str, str, dict[str, int]]] = {
    "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7": (
        "cl100k_base",
        "cl100k",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d": (
        "o200k_base",
        "o200k",
        {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    ),
    "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069": ("p50k_base", "gpt2", _GPT2_SPECIALS),
    "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930": ("r50k_base", "gpt2", _GPT2_SPECIALS),
}
"""Published rank files by sha256: name, split pattern, special tokens (as in tiktoken's `openai_public.py`)."""

NAMED: dict[str, tuple[str, dict[str, int] | None]] = {
    "gpt2": ("r50k_base", None),
    "r50k_base": ("r50k_base", None),
    "p50k_base": ("p50k_base", None),
    "p50k_edit": (
        "p50k_base",
        {**_GPT2_SPECIALS, "<|fim_prefix|>": 50281, "<|fim_middle|>": 50282, "<|fim_suffix|>": 50283},
    ),
    "cl100k_base": ("cl100k_base", None),
    "o200k_base": ("o200k_base", None),
    "o200k_harmony": (
        "o200k_base",
        {
            "<|startoftext|>": 199998,
            "<|endoftext|>": 199999,
            "<|reserved_200000|>": 200000,
            "<|reserved_200001|>": 200001,
            "<|return|>": 200002,
            "<|constrain|>": 200003,
            "<|reserved_200004|>": 200004,
            "<|channel|>": 200005,
            "<|start|>": 200006,
            "<|end|>": 200007,
            "<|message|>": 200008,
            "<|reserved_200009|>": 200009,
            "<|reserved_200010|>": 200010,
            "<|reserved_200011|>": 200011,
            "<|call|>": 200012,
            "<|endofprompt|>": 200018,
            **{f"<|reserved_{index}|>": index for index in range(200013, 201088)},
        },
    ),
}
"""Encodings by name: the rank file, and special tokens where they are not those of the file."""

_CACHED = {
    "r50k_base": "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4",
    "p50k_base": "ec7223a39ce59f226a68acc30dc1af2788490e15",
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}
"""What tiktoken calls the files in its cache."""


def read_named(name: str, folder: Path | None) -> tuple[VocabularyFile, Path]:
    """The encoding `name` and the rank file it was read from, which lies in `folder` or in one of the usual places."""
    known = NAMED.get(name) or NAMED.get(f"{name}_base")
    if known is None:
        raise InputError(f'there is no encoding "{name}"; known are {", ".join(NAMED)}')
    base, specials = known
    sha256 = next(digest for digest, entry in ENCODINGS.items() if entry[0] == base)
    looked: list[str] = []
    for place in _places(base, folder):
        for file in (place / _CACHED[base], place / f"{base}.tiktoken"):
            if not file.is_file():
                continue
            content = file.read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                return read_ranks(content, name=str(file), specials=specials), file
            looked.append(f"{file} (other content: its sha256 is not {sha256[:12]}...)")
        looked.append(str(place))
    raise InputError(
        f"the rank file of {base} is not on this machine; put {base}.tiktoken into a folder and give folder=..., "
        f"or let tiktoken fetch it once (looked in {', '.join(looked)})"
    )


def _places(base: str, folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    found = importlib.util.find_spec("litellm")
    if found is not None and found.origin is not None:
        yield Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    yield CACHE.expanduser() / base


def write_ranks(tokens: dict[int, bytes]) -> bytes:
    """The rank file of tokens by id."""
    return b"".join(base64.b64encode(token) + f" {index}\n".encode() for index, token in sorted(tokens.items()))


def read_ranks(
    content: bytes, *, name: str, scheme: str | None = None, specials: dict[str, int] | None = None
) -> VocabularyFile:
    """Read a rank file; `scheme` and `specials` override what is known of it."""
    known = ENCODINGS.get(hashlib.sha256(content).hexdigest())
    if known is None and scheme is None:
        raise InputError(
            f"{name} is neither a tokenizer.json nor a published tiktoken rank file; "
            "if it is a rank file of your own, say with which split pattern it was made (scheme=...)"
        )
    by_rank: dict[int, bytes] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            by_rank[int(rank)] = binascii.a2b_base64(token, strict_mode=True)
        except ValueError as error:
            raise InputError(f"{name}, line {number}: not a base64 token and a rank ({line[:40]!r})") from error
    if not by_rank:
        raise InputError(f"{name} is empty: a rank file has one base64 token and its rank a line")
    if max(by_rank) >= MAX_IDS or min(by_rank) < 0:
        raise InputError(f"{name} is damaged: it has ranks outside 0 to {MAX_IDS - 1}")
    if specials is None:
        specials = known[2] if known is not None else {}
    special_ids = set(specials.values())
    ranks = [b"" if rank in special_ids else by_rank.get(rank, b"") for rank in range(max(by_rank) + 1)]
    return VocabularyFile(
        scheme=scheme or (known[1] if known is not None else ""),
        specials=[Special(text, special_id) for text, special_id in specials.items()],
        ranks=ranks,
        whole_pieces=True,
        eos_id=specials.get("<|endoftext|>"),
    )
