"""Floor 3, formats_gguf: the vocabulary in a GGUF file's metadata. Knows nothing of tensors.

Which split pattern a `tokenizer.ggml.pre` stands for, and whether whole pieces skip the merges, is llama.cpp's
`llama-vocab.cpp`; only names whose pattern is exactly one of ours are listed.
"""

from __future__ import annotations

from pathlib import Path

from highrise.core.errors import InputError
from highrise.core.gguf import Gguf
from highrise.encode.formats import Special, VocabularyFile

__all__ = ["read_gguf"]

_SCHEMES = {
    **dict.fromkeys(("gpt-2", "gpt2", "phi-2", "gigachat", "mellum", "a.x-4.0", "mpt", "olmo", "jais"), "gpt2"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "command-r", "exaone", "minerva-7b"), "smollm"),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"), "llama3"),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo"), "qwen2"),
}
_WHOLE_PIECES = ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2")
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4


def read_gguf(path: Path) -> VocabularyFile:
    """Read the byte-level BPE vocabulary of `path`."""
    metadata = Gguf(path).metadata

    def get(key: str, default: object) -> object:
        return metadata.get(f"tokenizer.ggml.{key}", default)

    model, pre = get("model", None), get("pre", "default")
    if model is None:
        raise InputError(f"{path} holds no vocabulary (no tokenizer.ggml.model); give the tokenizer.json beside it")
    if model != "gpt2":
        raise InputError(f'{path} has a vocabulary of kind "{model}"; only byte-level BPE ("gpt2") is supported')
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
