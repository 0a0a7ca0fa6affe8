"""Floor 3, formats_tiktoken: rank files, one base64 token and its rank a line.

A rank file names neither its split pattern nor its special tokens: the published ones are told by their sha256, any
other needs them as arguments. Knows nothing of merges.
"""

from __future__ import annotations

import binascii
import hashlib

from highrise.core.errors import InputError
from highrise.encode.config import MAX_IDS
from highrise.encode.formats import Special, VocabularyFile

__all__ = ["ENCODINGS", "read_ranks"]

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
