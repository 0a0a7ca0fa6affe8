"""Floor 3, formats_huggingface: tokenizer.json in both directions, and the folder it lies in.

Only byte-level BPE with a split pattern we know; anything else in the file that would change the ids is one error that
names it. Special tokens that a post-processor would add are not added: prompts are made by `encode/prompt.py`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.encode.config import MAX_IDS
from highrise.encode.formats import Special, VocabularyFile

__all__ = ["PATTERNS", "read_folder", "read_tokenizer_json", "write_tokenizer_json"]

_WORDS = r"[^\r\n\p{L}\p{N}]?"
_TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CASED = (
    rf"{_WORDS}{_UPPER}*{_LOWER}+{_ENDINGS}?|{_WORDS}{_UPPER}+{_LOWER}*{_ENDINGS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_TAIL}"
)
_LLAMA3 = rf"{_ENDINGS}|{_WORDS}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_TAIL}"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_POSSESSIVE = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# OpenAI's own has `\p{N}{1,3}+`, which Oniguruma, the engine of `tokenizers`, takes for "any number of times".
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_CL100K_OLD = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*" + (
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)

PATTERNS: dict[str, str] = {
    _GPT2: "gpt2",
    _GPT2_POSSESSIVE: "gpt2",
    _LLAMA3: "llama3",
    _CL100K_OLD: "llama3",
    _CL100K: "cl100k",
    _QWEN2: "qwen2",
    _CASED: "o200k",
}
"""Regular expressions as files have them, and the scheme that splits the same."""

_EXPRESSIONS = {"gpt2": _GPT2, "llama3": _LLAMA3, "cl100k": _CL100K, "qwen2": _QWEN2, "o200k": _CASED}


class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True


class _Model(msgspec.Struct):
    vocab: dict[str, int]
    merges: list[str | list[str]]
    type: str = "BPE"
    dropout: float | None = None
    unk_token: str | None = None
    continuing_subword_prefix: str | None = None
    end_of_word_suffix: str | None = None
    byte_fallback: bool = False
    ignore_merges: bool = False


class _File(msgspec.Struct):
    model: msgspec.Raw
    added_tokens: list[_Added] = []
    normalizer: dict[str, object] | None = None
    pre_tokenizer: dict[str, object] | None = None
    truncation: dict[str, object] | None = None
    padding: dict[str, object] | None = None


class _Kind(msgspec.Struct):
    type: str = "BPE"


def read_tokenizer_json(content: bytes, *, name: str) -> VocabularyFile:
    """Read the bytes of a tokenizer.json; `name` stands in errors."""
    try:
        file = msgspec.json.decode(content, type=_File)
        kind = msgspec.json.decode(file.model, type=_Kind).type
        if kind != "BPE":
            raise _unsupported(name, f"a {kind} model; only byte-level BPE is supported")
        model = msgspec.json.decode(file.model, type=_Model)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is not a tokenizer.json: {error}") from error
    for field, value in (
        ("dropout", model.dropout),
        ("continuing_subword_prefix", model.continuing_subword_prefix),
        ("end_of_word_suffix", model.end_of_word_suffix),
        ("byte_fallback", model.byte_fallback),
    ):
        if value:
            raise _unsupported(name, f"model.{field} = {value!r}")
    if file.truncation is not None or file.padding is not None:
        field = "truncation" if file.truncation is not None else "padding"
        raise _unsupported(name, f"{field}; set it to null")
    size = max(model.vocab.values(), default=-1) + 1
    if size > MAX_IDS or min(model.vocab.values(), default=0) < 0:
        raise InputError(f"{name} is damaged: it has token ids outside 0 to {MAX_IDS - 1}")
    tokens = [""] * size
    for token, index in model.vocab.items():
        tokens[index] = token
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.merges]
    return VocabularyFile(
        scheme=_read_scheme(file.pre_tokenizer, name),
        specials=[_read_added(added, name) for added in file.added_tokens],
        tokens=tokens,
        merges=merges,
        whole_pieces=model.ignore_merges,
        nfc=_read_normalizer(file.normalizer, name),
    )


def _unsupported(name: str, what: str) -> InputError:
    return InputError(f"{name} is not supported: it has {what}")


def _read_added(added: _Added, name: str) -> Special:
    for field in ("single_word", "lstrip", "rstrip"):
        if getattr(added, field):
            raise _unsupported(name, f"the added token {added.content!r} with {field}")
    return Special(added.content, added.id, not added.special and not added.content.strip())


def _read_normalizer(normalizer: dict[str, object] | None, name: str) -> bool:
    """Whether the text is brought to NFC."""
    if normalizer is None:
        return False
    parts = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
    assert isinstance(parts, list)
    for part in parts:
        if part.get("type") != "NFC":
            raise _unsupported(name, f"the normalizer {part.get('type')}; only NFC is supported")
    return bool(parts)


def _read_scheme(pre_tokenizer: dict[str, object] | None, name: str) -> str:
    if pre_tokenizer is None:
        raise _unsupported(name, "no pre_tokenizer; byte-level BPE needs one")
    listed = pre_tokenizer.get("pretokenizers") if pre_tokenizer.get("type") == "Sequence" else [pre_tokenizer]
    assert isinstance(listed, list)
    parts: list[dict[str, object]] = listed
    kinds = [str(part.get("type")) for part in parts]
    if not kinds or kinds[-1] != "ByteLevel":
        raise _unsupported(name, f"the pre_tokenizer {' + '.join(kinds)}; its last part must be ByteLevel")
    if parts[-1].get("add_prefix_space"):
        raise _unsupported(name, "ByteLevel with add_prefix_space")
    own_split = parts[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and own_split:
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and own_split and parts[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not own_split:
        split = parts[0]
        pattern = split.get("pattern")
        expression = pattern.get("Regex") if isinstance(pattern, dict) else None
        # With "Removed" and invert the matches are kept; with "Isolated" too, and these patterns match everything.
        keeps = (split.get("behavior"), bool(split.get("invert"))) in (("Isolated", False), ("Removed", True))
        if keeps and expression in PATTERNS:
            return PATTERNS[str(expression)]
        raise _unsupported(name, f"the split pattern {expression or pattern!r} ({split.get('behavior')})")
    raise _unsupported(name, f"the pre_tokenizer {' + '.join(kinds)} with these settings")


class _TokenizerConfig(msgspec.Struct):
    eos_token: str | dict[str, object] | None = None
    bos_token: str | dict[str, object] | None = None
    add_bos_token: bool = False


def _content(token: str | dict[str, object] | None) -> str | None:
    return str(token.get("content")) if isinstance(token, dict) else token


def read_folder(folder: Path) -> VocabularyFile:
    """The tokenizer.json of a folder, with the end and begin tokens of tokenizer_config.json beside it."""
    path = folder / "tokenizer.json"
    try:
        file = read_tokenizer_json(path.read_bytes(), name=str(path))
    except OSError as error:
        raise InputError(f"{folder} has no readable tokenizer.json: {error.strerror or error}") from error
    beside = folder / "tokenizer_config.json"
    if not beside.exists():
        return file
    try:
        config = msgspec.json.decode(beside.read_bytes(), type=_TokenizerConfig)
    except msgspec.MsgspecError as error:
        raise InputError(f"{beside} cannot be read: {error}") from error
    ids = {special.text: special.id for special in file.specials}
    return msgspec.structs.replace(
        file,
        eos_id=ids.get(_content(config.eos_token) or ""),
        bos_id=ids.get(_content(config.bos_token) or ""),
        add_bos=config.add_bos_token,
    )


def write_tokenizer_json(file: VocabularyFile) -> bytes:
    """The bytes of a tokenizer.json that Hugging Face's tokenizers loads with the same ids.

    Special tokens stand in the model's vocabulary too: `tokenizers` renumbers added tokens whose ids leave a gap.
    """
    vocab = {token: index for index, token in enumerate(file.tokens) if token}
    vocab.update((special.text, special.id) for special in file.specials)
    last: dict[str, object] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": file.scheme in ("gpt2", "smollm"),
    }
    parts: list[dict[str, object]] = []
    if file.scheme == "smollm":
        parts = [{"type": "Digits", "individual_digits": True}]
    elif file.scheme != "gpt2":
        pattern = {"Regex": _EXPRESSIONS[file.scheme]}
        parts = [{"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}]
    added = [
        {
            "id": special.id,
            "content": special.text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": not special.in_plain_text,
        }
        for special in sorted(file.specials, key=lambda special: special.id)
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if file.nfc else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*parts, last]} if parts else last,
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": file.whole_pieces,
            "vocab": vocab,
            "merges": [merge.split(" ") for merge in file.merges],
        },
    }
    return msgspec.json.encode(content)
