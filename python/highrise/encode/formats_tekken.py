"""Floor 3, formats_tekken: Mistral's tekken JSON: tiktoken ranks behind a block of special tokens, and the split
pattern. Knows nothing of chat formats.
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from highrise.core.errors import InputError
from highrise.core.json_text import decode_json
from highrise.core.native import rust
from highrise.encode.config import MAX_IDS
from highrise.encode.pipeline import Added, PipelineFile

__all__ = ["read_tekken"]

_NAMED = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""Of files up to version 7, which do not list them."""


class _Token(msgspec.Struct):
    rank: int
    token_bytes: str


class _Special(msgspec.Struct):
    rank: int
    token_str: str


class _Config(msgspec.Struct):
    pattern: str
    default_vocab_size: int
    default_num_special_tokens: int


class _File(msgspec.Struct):
    config: _Config
    vocab: list[_Token]
    special_tokens: list[_Special] | None = None


def read_tekken(content: bytes, *, name: str) -> PipelineFile:
    """Read the bytes of a tekken JSON; `name` stands in errors."""
    try:
        file = decode_json(content, _File)
    except msgspec.MsgspecError as error:
        raise InputError(f"{name} is not a tekken JSON: {error}") from error
    size, first = file.config.default_vocab_size, file.config.default_num_special_tokens
    if not 0 <= first < size <= MAX_IDS or size - first > len(file.vocab):
        raise InputError(
            f"{name} is damaged: {size} ids of which {first} are special do not go with {len(file.vocab)} tokens"
        )
    ranks = [b""] * (size - first)
    for index, token in enumerate(file.vocab[: len(ranks)]):
        if not 0 <= token.rank < len(ranks) or ranks[token.rank]:
            raise InputError(f"{name} is damaged: token {index} has the rank {token.rank}")
        try:
            ranks[token.rank] = binascii.a2b_base64(token.token_bytes, strict_mode=True)
        except ValueError as error:
            raise InputError(f"{name} is damaged: token {index} is not base64 ({error})") from error
    listed = file.special_tokens
    special = dict(enumerate(_NAMED)) if listed is None else {one.rank: one.token_str for one in listed}
    if len(special) > first or any(not 0 <= rank < first for rank in special):
        raise InputError(f"{name} is damaged: {len(special)} special tokens do not fit into the first {first} ids")
    names = [special.get(index, f"<SPECIAL_{index}>") for index in range(first)]
    # The merges that ranks stand for; the pattern of this object is never used.
    tokens, merges = rust.BytePairTokenizer.from_ranks(ranks, scheme="o200k", specials=[]).byte_level()
    pattern: dict[str, Any] = {
        "type": "Split",
        "pattern": {"Regex": file.config.pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return PipelineFile(
        tokens=[*names, *tokens],
        merges=merges,
        model={"type": "BPE", "ignore_merges": True},
        added=[Added(index, text, special=True, normalized=False) for index, text in enumerate(names)],
        pre_tokenizer={"type": "Sequence", "pretokenizers": [pattern, last]},
        decoder={**last, "add_prefix_space": True, "use_regex": True},
        eos_id=names.index("</s>") if "</s>" in names else None,
        bos_id=names.index("<s>") if "<s>" in names else None,
        add_bos="<s>" in names,
        name=name,
    )
