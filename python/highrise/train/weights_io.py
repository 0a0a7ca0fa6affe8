"""Floor 4, weights in and out: GGUF files and Hugging Face folders become a Decoder, a Decoder becomes a folder.

What is saved loads in transformers (Llama or Qwen2 architecture) with equal logits. Knows no training.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch

from highrise.core.errors import ConfigError
from highrise.core.files import atomic_write
from highrise.core.safetensors import write_safetensors
from highrise.core.shape import DIMENSIONS, DecoderShape
from highrise.core.weights import Tensor as StoredTensor
from highrise.core.weights import open_weights
from highrise.train.model import Decoder

__all__ = ["config_json", "load_decoder", "save_decoder", "write_tokenizer_files"]

_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def load_decoder(path: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Decoder:
    """The decoder in a GGUF file (dequantised) or a Hugging Face folder, its weights in `dtype`.

    Raises `InputError` for a missing, damaged or unknown model.
    """
    weights = open_weights(path)
    with torch.device("meta"):
        decoder = Decoder(weights.shape)
    state = {name: _to_torch(tensor, dtype).to(device) for name, tensor in weights.tensors.items()}
    decoder.load_state_dict(state, assign=True)
    return decoder


def _to_torch(tensor: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.type == "BF16" and dtype == torch.bfloat16:
        bits = torch.from_numpy(np.array(tensor.raw(), copy=True))
        return bits.view(torch.bfloat16).reshape(tensor.shape)
    values = tensor.dequantise()
    return torch.from_numpy(values if values.flags.writeable else values.copy()).to(dtype)


def config_json(shape: DecoderShape, *, dtype: str, eos_ids: tuple[int, ...] = ()) -> dict[str, object]:
    """The `config.json` of a decoder: Qwen2 when it has QKV biases, Llama otherwise."""
    query = shape.num_attention_heads * shape.head_dim
    if shape.attention_bias and query != shape.hidden_size:
        raise ConfigError(
            f"a Qwen2 decoder has heads x head_dim = hidden size, here {query} and {shape.hidden_size}; drop the bias"
        )
    config: dict[str, object] = {
        "architectures": ["Qwen2ForCausalLM" if shape.attention_bias else "LlamaForCausalLM"],
        "model_type": "qwen2" if shape.attention_bias else "llama",
        "hidden_act": "silu",
        "torch_dtype": dtype,
        **{name: getattr(shape, name) for name in DIMENSIONS},
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "use_cache": True,
    }
    if shape.attention_bias:
        del config["attention_bias"], config["head_dim"]
        config["use_sliding_window"] = False
    if eos_ids:
        config["eos_token_id"] = list(eos_ids) if len(eos_ids) > 1 else eos_ids[0]
    return config


def save_decoder(
    decoder: Decoder,
    folder: Path,
    *,
    tokenizer_files_from: Path | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Write `folder` as a Hugging Face model folder: config.json, model.safetensors, and the tokenizer's files.

    `tokenizer_files_from` is a folder that has them, or a GGUF file whose vocabulary is written out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    eos_ids: tuple[int, ...] = ()
    if tokenizer_files_from is not None:
        eos_ids = write_tokenizer_files(tokenizer_files_from, folder)
    state = decoder.state_dict()
    arrays = {name: _to_numpy(value, dtype) for name, value in state.items()}
    write_safetensors(folder / "model.safetensors", arrays, metadata={"format": "pt"}, uint16_is="BF16")
    _write_json(folder / "config.json", config_json(decoder.shape, dtype=dtype, eos_ids=eos_ids))


def _to_numpy(value: torch.Tensor, dtype: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    value = value.detach().cpu().contiguous()
    if dtype == "bfloat16":
        return value.to(torch.bfloat16).view(torch.uint16).numpy()
    return value.float().numpy()


def write_tokenizer_files(source: Path, folder: Path) -> tuple[int, ...]:
    """Put tokenizer.json and tokenizer_config.json of `source` (folder or GGUF) into `folder`; the end tokens' ids."""
    from highrise.encode import Tokenizer
    from highrise.encode.prompt_template import CHATML

    tokenizer = Tokenizer.for_weights(source) if source.is_file() else Tokenizer.from_file(source / "tokenizer.json")
    if source.is_dir():
        for name in _COPIED:
            if (source / name).exists() and source.resolve() != folder.resolve():
                shutil.copyfile(source / name, folder / name)
    else:
        tokenizer.save(folder / "tokenizer.json")
    if not (folder / "tokenizer_config.json").exists():
        template = open_weights(source).metadata.get("tokenizer.chat_template") if source.is_file() else None
        if template is None and "<|im_start|>" in tokenizer.special_tokens:
            template = CHATML
        config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False}
        if isinstance(template, str):
            config["chat_template"] = template
        if tokenizer.eos_ids:
            config["eos_token"] = tokenizer.token(tokenizer.eos_ids[0]).decode()
        _write_json(folder / "tokenizer_config.json", config)
    return tuple(tokenizer.eos_ids)


def _write_json(path: Path, value: object) -> None:
    with atomic_write(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=2))
