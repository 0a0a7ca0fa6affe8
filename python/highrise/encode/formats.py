"""Floor 3, formats: what every vocabulary file comes down to, and which reader a file needs.

Knows neither the layout of a format (one `formats_NAME.py` each) nor how text is encoded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from highrise.core.errors import InputError
from highrise.core.json_text import decode_json
from highrise.encode.pipeline import PipelineFile

__all__ = [
    "BINARY_MAGIC",
    "END_OF_TURN",
    "Special",
    "VocabularyFile",
    "end_ids",
    "read_bytes",
    "read_file",
    "read_weights",
    "write_binary",
]

BINARY_MAGIC = b"HRVOCAB1"

END_OF_TURN = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|return|>",
    "<EOT>",
    "</s>",
)
"""Special tokens that end a turn or a document, whatever a file's own end-of-sequence id is (llama.cpp's names)."""


class Special(msgspec.Struct, frozen=True, array_like=True):
    """A special token. `in_plain_text`: found in every text, like the runs of blanks that some vocabularies add."""

    text: str
    id: int
    in_plain_text: bool = False


class VocabularyFile(msgspec.Struct, frozen=True, kw_only=True):
    """A byte-level BPE vocabulary as any file gives it.

    `tokens` and `merges` ("left right") are in GPT-2's byte alphabet; or `ranks` holds tiktoken's bytes and both
    are empty.
    """

    scheme: str
    specials: list[Special]
    tokens: list[str] = []
    merges: list[str] = []
    ranks: list[bytes] = []
    whole_pieces: bool = False
    nfc: bool = False
    eos_id: int | None = None
    bos_id: int | None = None
    add_bos: bool = False
    before: list[int] = []
    after: list[int] = []
    """What the file's post-processor puts around one text."""


def end_ids(eos_id: int | None, specials: dict[str, int]) -> tuple[int, ...]:
    """The file's own end-of-sequence id first, then the other tokens that end a turn."""
    named = [specials[name] for name in END_OF_TURN if name in specials]
    return tuple(dict.fromkeys(([] if eos_id is None else [eos_id]) + named))


def read_file(path: Path) -> VocabularyFile | PipelineFile:
    """Read a vocabulary file of any kind; which it is, its first bytes say."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head == b"GGUF":
                from highrise.encode.formats_gguf import read_gguf

                return read_gguf(path)
            content = head + file.read()
    except OSError as error:
        raise InputError(f"cannot read the vocabulary {path}: {error.strerror or error}") from error
    return read_bytes(content, name=str(path))


def read_bytes(content: bytes, *, name: str) -> VocabularyFile | PipelineFile:
    """Read the bytes of any vocabulary file but GGUF; `name` stands in errors."""
    if content.startswith(BINARY_MAGIC):
        return _read_binary(content, name=name)
    if content.lstrip()[:1] == b"{":
        if _is_tekken(content):
            from highrise.encode.formats_tekken import read_tekken

            return read_tekken(content, name=name)
        from highrise.encode.formats_huggingface import read_tokenizer_json

        return read_tokenizer_json(content, name=name)
    from highrise.encode.formats_sentencepiece import looks_like_sentencepiece, read_sentencepiece

    if looks_like_sentencepiece(content):
        return read_sentencepiece(content, name=name)
    from highrise.encode.formats_tiktoken import read_ranks

    return read_ranks(content, name=name)


class _Head(msgspec.Struct):
    config: msgspec.Raw = msgspec.Raw()
    vocab: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()


def _is_tekken(content: bytes) -> bool:
    try:
        head = decode_json(content, _Head)
    except msgspec.MsgspecError:
        return False
    return not bytes(head.model) and bool(bytes(head.config)) and bool(bytes(head.vocab))


def write_binary(file: VocabularyFile | PipelineFile) -> bytes:
    """The vocabulary as MessagePack behind a head with its sha256: read without parsing text."""
    kind = b"p" if isinstance(file, PipelineFile) else b"v"
    body = kind + msgspec.msgpack.encode(file)
    return BINARY_MAGIC + hashlib.sha256(body).digest() + body


def _read_binary(content: bytes, *, name: str) -> VocabularyFile | PipelineFile:
    start = len(BINARY_MAGIC)
    digest, body = content[start : start + 32], content[start + 32 :]
    if hashlib.sha256(body).digest() != digest:
        raise InputError(f"{name} is damaged: its sha256 is not the one in its head; write it again")
    try:
        if body[:1] == b"p":
            return msgspec.msgpack.decode(body[1:], type=PipelineFile)
        return msgspec.msgpack.decode(body[1:], type=VocabularyFile)
    except msgspec.MsgspecError as error:
        raise InputError(f"{name} is of another version of this format ({error}); write it again") from error


def read_weights(path: Path) -> VocabularyFile | PipelineFile:
    """The vocabulary that belongs to weights: a GGUF file, or a folder in Hugging Face's layout."""
    if not path.is_dir():
        return read_file(path)
    from highrise.encode.formats_huggingface import read_folder

    return read_folder(path)
