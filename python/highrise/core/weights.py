"""Floor 0, weights: one view of a model's weights, whether they lie in a GGUF file or in a Hugging Face folder.

Tensors carry Hugging Face names and the rotate-half layout of rotary embeddings; nothing is dequantised until asked.
Knows the shapes of Llama and Qwen2 decoders and nothing of how they are run.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.blocks import dequantise
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf, GgufTensor
from highrise.core.safetensors import SafeTensors
from highrise.core.shape import DecoderShape

__all__ = ["Tensor", "WeightFile", "open_weights", "shape_of_config"]

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}


class Tensor(abc.ABC):
    """A weight matrix (rows, columns) or vector (columns,), stored as blocks of `type`."""

    name: str
    shape: tuple[int, ...]
    type: str

    @abc.abstractmethod
    def raw(self) -> npt.NDArray[np.uint8]:
        """The stored blocks, row after row: uint8, contiguous."""

    def dequantise(self) -> npt.NDArray[np.float32]:
        """The values in float32, of `shape`."""
        return dequantise(self.raw(), self.type).reshape(self.shape)


class _GgufTensor(Tensor):
    def __init__(self, name: str, file: Gguf, stored: GgufTensor, *, interleaved_heads: int = 0) -> None:
        self.name, self.shape, self.type = name, stored.shape, stored.type
        self._file, self._stored, self._heads = file, stored, interleaved_heads

    def raw(self) -> npt.NDArray[np.uint8]:
        blocks = self._file.read(self._stored.name)
        if not self._heads:
            return blocks
        # GGUF stores llama's q and k for rotary pairs (2i, 2i+1); rotate-half pairs (i, i + d/2). Whole rows move.
        rows = blocks.reshape(self._heads, -1, 2, self._stored.num_bytes // self.shape[0])
        return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)


class _SafeTensor(Tensor):
    def __init__(self, name: str, file: SafeTensors, path: Path) -> None:
        stored = file.tensors[name]
        if stored.dtype not in ("F32", "F16", "BF16"):
            raise InputError(f"{path}: tensor {name} has the type {stored.dtype}; F32, F16 and BF16 weights are read")
        self.name, self.shape, self.type = name, stored.shape, stored.dtype
        self._file = file

    def raw(self) -> npt.NDArray[np.uint8]:
        return self._file.raw(self.name)


class WeightFile(msgspec.Struct, frozen=True, kw_only=True):
    """The weights of one decoder. `metadata` is GGUF's, or the contents of `config.json`."""

    path: Path
    kind: Literal["gguf", "safetensors"]
    architecture: str
    shape: DecoderShape
    metadata: dict[str, object]
    tensors: dict[str, Tensor]


def open_weights(path: Path) -> WeightFile:
    """Open a GGUF file or a Hugging Face folder and check that every tensor of the decoder is there.

    Raises `InputError` for a missing, damaged, incomplete or unknown model, naming what was found.
    """
    if path.is_dir():
        weights = _open_folder(path)
    elif path.is_file():
        weights = _open_gguf(path)
    else:
        raise InputError(
            f"there are no weights at {path}: give a GGUF file, a Hugging Face folder, or a catalogue name"
        )
    _check_complete(weights)
    return weights


def _open_gguf(path: Path) -> WeightFile:
    file = Gguf(path)
    metadata = file.metadata
    architecture = str(metadata.get("general.architecture", "nothing"))
    if architecture not in ("llama", "qwen2"):
        raise InputError(f"{path} holds the architecture {architecture}; llama and qwen2 are run")

    def number(key: str, default: float | None = None) -> float:
        value = metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, int | float):
            raise InputError(f"{path} lacks the number {architecture}.{key} in its metadata")
        return value

    if "rope_freqs.weight" in file.tensors or metadata.get(f"{architecture}.rope.scaling.type", "none") != "none":
        raise InputError(f"{path} scales its rotary embeddings, which is not supported; use weights without scaling")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise InputError(f"{path} has no tensor token_embd.weight: it holds no whole decoder")
    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    key_value_heads = int(number("attention.head_count_kv", heads))
    shape = DecoderShape(
        hidden_size=hidden,
        num_hidden_layers=int(number("block_count")),
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        intermediate_size=int(number("feed_forward_length")),
        vocab_size=embedding.shape[0],
        max_position_embeddings=int(number("context_length")),
        head_dim=int(number("attention.key_length", hidden // heads)),
        rope_theta=float(number("rope.freq_base", 10_000.0)),
        rms_norm_eps=float(number("attention.layer_norm_rms_epsilon")),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        tie_word_embeddings="output.weight" not in file.tensors,
    )
    interleaved = {"attn_q": heads, "attn_k": key_value_heads} if architecture == "llama" else {}
    tensors: dict[str, Tensor] = {}
    for stored in file.tensors.values():
        name, part = _hugging_face_name(stored.name, path)
        tensors[name] = _GgufTensor(name, file, stored, interleaved_heads=interleaved.get(part, 0))
    return WeightFile(
        path=path, kind="gguf", architecture=architecture, shape=shape, metadata=metadata, tensors=tensors
    )


def _hugging_face_name(name: str, path: Path) -> tuple[str, str]:
    """`blk.3.attn_q.weight` -> (`model.layers.3.self_attn.q_proj.weight`, `attn_q`)."""
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in _TOP_NAMES:
        return f"{_TOP_NAMES[parts[0]]}.{parts[1]}", parts[0]
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}", parts[2]
    raise InputError(f"{path} holds the tensor {name}, which is no part of a llama or qwen2 decoder")


def _open_folder(path: Path) -> WeightFile:
    config_path = path / "config.json"
    try:
        config = msgspec.json.decode(config_path.read_bytes(), type=dict[str, object])
    except FileNotFoundError as error:
        raise InputError(f"{path} is no model folder: it has no config.json") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{config_path} is not valid JSON: {error}") from error
    architectures = config.get("architectures")
    name = architectures[0] if isinstance(architectures, list) and architectures else "nothing"
    if name not in _ARCHITECTURES:
        raise InputError(f"{config_path} names the architecture {name}; {', '.join(_ARCHITECTURES)} are run")
    shape = shape_of_config(config, where=str(config_path), attention_bias=_ARCHITECTURES[name] == "qwen2")
    tensors: dict[str, Tensor] = {}
    for file_path in _shards(path):
        file = SafeTensors(file_path)
        for tensor_name in file.tensors:
            if not tensor_name.endswith("rotary_emb.inv_freq"):
                tensors[tensor_name] = _SafeTensor(tensor_name, file, file_path)
    if shape.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    return WeightFile(
        path=path,
        kind="safetensors",
        architecture=_ARCHITECTURES[name],
        shape=shape,
        metadata=config,
        tensors=tensors,
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    names = msgspec.json.decode(index.read_bytes(), type=dict[str, object]).get("weight_map")
    if not isinstance(names, dict):
        raise InputError(f"{index} has no weight_map")
    return [folder / name for name in sorted(set(names.values()))]


def shape_of_config(config: dict[str, object], *, where: str, attention_bias: bool = False) -> DecoderShape:
    """The shape that a Hugging Face `config.json` describes; `where` names it in errors.

    `attention_bias` is the architecture's habit, used where the file is silent. Both the older `rope_theta` and the
    newer `rope_parameters` are read; scaled rotary embeddings are refused.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    assert isinstance(rope, dict)
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise InputError(f"{where} scales its rotary embeddings ({rope}), which is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise InputError(f"{where} has the activation {config['hidden_act']}; silu is run")
    values = {**rope, **config}
    values["attention_bias"] = config.get("attention_bias", attention_bias)
    values.setdefault("num_key_value_heads", values.get("num_attention_heads"))
    if values.get("head_dim") is None:
        hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            values["head_dim"] = hidden // heads
    try:
        return msgspec.convert(values, DecoderShape)
    except msgspec.ValidationError as error:
        raise InputError(f"{where} does not describe a decoder: {error}") from error


def _check_complete(weights: WeightFile) -> None:
    shape = weights.shape
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    needed: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not shape.tie_word_embeddings:
        needed["lm_head.weight"] = (shape.vocab_size, hidden)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        needed |= {
            f"{prefix}input_layernorm.weight": (hidden,),
            f"{prefix}self_attn.q_proj.weight": (query, hidden),
            f"{prefix}self_attn.k_proj.weight": (key_value, hidden),
            f"{prefix}self_attn.v_proj.weight": (key_value, hidden),
            f"{prefix}self_attn.o_proj.weight": (hidden, query),
            f"{prefix}post_attention_layernorm.weight": (hidden,),
            f"{prefix}mlp.gate_proj.weight": (inner, hidden),
            f"{prefix}mlp.up_proj.weight": (inner, hidden),
            f"{prefix}mlp.down_proj.weight": (hidden, inner),
        }
        if shape.attention_bias:
            needed |= {
                f"{prefix}self_attn.{part}_proj.bias": (rows,)
                for part, rows in (("q", query), ("k", key_value), ("v", key_value))
            }
    for name, expected in needed.items():
        tensor = weights.tensors.get(name)
        if tensor is None:
            raise InputError(f"{weights.path} lacks the tensor {name}: it is incomplete")
        if tensor.shape != expected:
            raise InputError(
                f"{weights.path}: tensor {name} has shape {tensor.shape}, its configuration says {expected}"
            )
    extra = sorted(set(weights.tensors) - set(needed))
    if extra:
        raise InputError(
            f"{weights.path} holds {len(extra)} tensors that this decoder has no place for, first {extra[0]}"
        )
