"""Floor 3, formats: what every vocabulary file comes down to, and which reader a file needs.

Knows neither the layout of a format (one `formats_NAME.py` each) nor how text is encoded.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from highrise.core.errors import InputError

__all__ = ["END_OF_TURN", "Special", "VocabularyFile", "end_ids", "read_bytes", "read_file", "read_weights"]

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


def end_ids(eos_id: int | None, specials: dict[str, int]) -> tuple[int, ...]:
    """The file's own end-of-sequence id first, then the other tokens that end a turn."""
    named = [specials[name] for name in END_OF_TURN if name in specials]
    return tuple(dict.fromkeys(([] if eos_id is None else [eos_id]) + named))


def read_file(path: Path) -> VocabularyFile:
    """Read tokenizer.json, a tiktoken rank file or the vocabulary of a GGUF file; which it is, its first bytes say."""
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


def read_bytes(content: bytes, *, name: str) -> VocabularyFile:
    """Read the bytes of a tokenizer.json or of a tiktoken rank file; `name` stands in errors."""
    if content.lstrip()[:1] == b"{":
        from highrise.encode.formats_huggingface import read_tokenizer_json

        return read_tokenizer_json(content, name=name)
    from highrise.encode.formats_tiktoken import read_ranks

    return read_ranks(content, name=name)


def read_weights(path: Path) -> VocabularyFile:
    """The vocabulary that belongs to weights: a GGUF file, or a folder in Hugging Face's layout."""
    if not path.is_dir():
        return read_file(path)
    from highrise.encode.formats_huggingface import read_folder

    return read_folder(path)
