"""Floor 3, formats_gguf: the vocabulary in a GGUF file's metadata. Knows nothing of tensors.

Which split pattern a `tokenizer.ggml.pre` stands for, and whether whole pieces skip the merges, is llama.cpp's
`llama-vocab.cpp`; only names whose pattern is exactly one of ours are listed.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from highrise.core.errors import InputError
from highrise.core.gguf import open_gguf
from highrise.encode.formats import Special, VocabularyFile
from highrise.encode.formats_sentencepiece import make_pipeline
from highrise.encode.pipeline import PipelineFile

__all__ = ["read_gguf"]

_SCHEMES = {
    **dict.fromkeys(("gpt-2", "gpt2", "phi-2", "gigachat", "mellum", "a.x-4.0", "mpt", "olmo", "jais"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "command-r", "exaone", "minerva-7b"), "smollm"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"), "llama3"),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo"), "qwen2"),
}
_WHOLE_PIECES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2")
_SENTENCEPIECE = {"llama": "SentencePieceBPE", "t5": "SentencePieceUnigram"}
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4


def read_gguf(path: Path) -> VocabularyFile | PipelineFile:
    """Read the vocabulary of `path`."""
    metadata = open_gguf(path).metadata

    def get(key: str, default: object) -> object:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    model, pre = get("model", None), get("pre", "default")
    if model is None:
        raise InputError(f"{path} holds no vocabulary (no tokenizer.ggml.model); give the tokenizer.json beside it")
    if model in _SENTENCEPIECE:
        return _read_sentencepiece(path, metadata, _SENTENCEPIECE[model])
    if model != "gpt2":
        known = ", ".join(("gpt2", *_SENTENCEPIECE))
        raise InputError(f'{path} has a vocabulary of kind "{model}", which is not supported; supported are {known}')
    if not isinstance(pre, str) or pre not in _SCHEMES:
        known = ", ".join(sorted(_SCHEMES))
        raise InputError(f'{path} has the pre-tokeniser "{pre}", which is not supported; supported are {known}')
    if get("add_space_prefix", False):
        raise InputError(f"{path} wants a blank before every text (add_space_prefix), which is not supported")
    tokens, merges, types = get("tokens", None), get("merges", None), get("token_type", None)
    if not isinstance(tokens, list) or not isinstance(merges, list):
        raise InputError(f"{path} has no tokenizer.ggml.tokens or no tokenizer.ggml.merges; it cannot encode text")
    kinds = types if isinstance(types, list) else [1] * len(tokens)
    specials = [
        Special(token, index, kind == _USER_DEFINED and not token.strip())
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    eos, bos = get("eos_token_id", None), get("bos_token_id", None)
    return VocabularyFile(
        scheme=_SCHEMES[pre],
        specials=specials,
        tokens=tokens,
        merges=merges,
        whole_pieces=pre in _WHOLE_PIECES,
        eos_id=eos if isinstance(eos, int) else None,
        bos_id=bos if isinstance(bos, int) else None,
        add_bos=bool(get("add_bos_token", pre in _WHOLE_PIECES)),
    )


def _read_sentencepiece(path: Path, metadata: Mapping[str, Any], kind: str) -> PipelineFile:
    """llama.cpp keeps a SentencePiece model's pieces, scores and kinds; text is not normalised but for blanks."""

    def get(key: str, default: Any) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    tokens, scores, kinds = get("tokens", None), get("scores", None), get("token_type", None)
    if not all(isinstance(part, list) for part in (tokens, scores, kinds)) or not len(tokens) == len(scores) == len(
        kinds
    ):
        raise InputError(f"{path} needs as many tokenizer.ggml.scores and token_type as tokens; it cannot encode text")
    charsmap = get("precompiled_charsmap", b"")
    try:
        file = make_pipeline(
            tokens,
            [float(score) for score in scores],
            bytes(kinds),
            kind=kind,
            normalizer={
                "type": "SentencePiece",
                "precompiled_charsmap": base64.b64encode(bytes(charsmap)).decode(),
                "add_dummy_prefix": bool(get("add_space_prefix", True)),
                "remove_extra_whitespaces": bool(get("remove_extra_whitespaces", False)),
                "escape_whitespaces": bool(get("escape_whitespaces", True)),
                "treat_whitespace_as_suffix": False,
            },
            byte_fallback=6 in kinds,
            unknown_text=" \u2047 ",
            name=str(path),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: its vocabulary cannot be used ({error})") from error
    eos, bos = get("eos_token_id", None), get("bos_token_id", None)
    return msgspec.structs.replace(
        file,
        eos_id=eos if isinstance(eos, int) else file.eos_id,
        bos_id=bos if isinstance(bos, int) else file.bos_id,
        add_bos=bool(get("add_bos_token", kind == "SentencePieceBPE")),
    )
