"""Floor 0, weights: one view of a model's weights, whether they lie in a GGUF file or in a Hugging Face folder.

Tensors carry Hugging Face names and the rotate-half layout of rotary embeddings; nothing is dequantised until asked.
Matrices that some architectures fuse come apart, and norms that count from one are given as they multiply. What
architectures there are stands in `architecture.py`; how they are run is not known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.architecture import shape_of_config
from highrise.core.architecture_gguf import hugging_face_name, shape_of_gguf
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf, GgufTensor, open_gguf
from highrise.core.json_text import decode_json
from highrise.core.packed_int4 import packing_of, unpacked
from highrise.core.safetensors import SafeTensors
from highrise.core.shape import DecoderShape
from highrise.core.tensor import FromOne, Rows, Tensor

__all__ = ["Tensor", "WeightFile", "file_rows", "open_weights", "parts_of"]


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
    file = open_gguf(path)
    architecture, shape = shape_of_gguf(file)
    tensors: dict[str, Tensor] = {}
    for stored in file.tensors.values():
        if stored.name != "rope_freqs.weight":
            name, part = hugging_face_name(stored.name, architecture, path)
            tensors[name] = _GgufTensor(name, file, stored, interleaved_heads=_interleaved(architecture, shape, part))
    return WeightFile(
        path=path,
        kind="gguf",
        architecture=architecture,
        shape=shape,
        metadata=file.metadata,
        tensors=_taken_apart(tensors, shape),
    )


def parts_of(file: WeightFile, stored_name: str) -> tuple[str, ...]:
    """The tensors of `file` that lie in the tensor of that name of its GGUF file, in the order of their rows."""
    if stored_name == "rope_freqs.weight":
        return ()
    name, _ = hugging_face_name(stored_name, file.architecture, file.path)
    for whole, parts in _fused(file.shape).items():
        if whole in name and name not in file.tensors:
            return tuple(name.replace(whole, f".{part}.") for part, _ in parts)
    return (name,)


def file_rows(file: WeightFile, stored_name: str, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rows (rows, bytes) of a tensor of `file` in the order in which its GGUF file keeps them."""
    _, part = hugging_face_name(stored_name, file.architecture, file.path)
    heads = _interleaved(file.architecture, file.shape, part)
    if not heads:
        return rows
    turned = rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2)
    return np.ascontiguousarray(turned).reshape(rows.shape)


def _interleaved(architecture: str, shape: DecoderShape, part: str) -> int:
    """Heads of a GGUF tensor whose rows are in the order of rotary pairs (2i, 2i+1); 0 for the others."""
    heads = {"attn_q": shape.num_attention_heads, "attn_k": shape.num_key_value_heads}
    return heads.get(part, 0) if architecture == "llama" else 0


def _fused(shape: DecoderShape) -> dict[str, tuple[tuple[str, int], ...]]:
    """What fused projections are called, and the parts they hold with their rows."""
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    inner = shape.intermediate_size
    return {
        ".qkv_proj.": (("q_proj", query), ("k_proj", key_value), ("v_proj", key_value)),
        ".gate_up_proj.": (("gate_proj", inner), ("up_proj", inner)),
    }


def _taken_apart(tensors: dict[str, Tensor], shape: DecoderShape) -> dict[str, Tensor]:
    """The same tensors, with the fused projections of queries, keys, values and of gate and up as one tensor each."""
    fused = _fused(shape)
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = next((whole for whole in fused if whole in name), "")
        parts = fused.get(whole, ())
        if not parts or tensor.shape[0] != sum(count for _, count in parts):
            result[name] = tensor  # a wrong number of rows is found by the check for completeness
            continue
        first = 0
        for part, count in parts:
            own = name.replace(whole, f".{part}.")
            result[own] = Rows(own, tensor, first, count)
            first += count
    return result


def _open_folder(path: Path) -> WeightFile:
    config_path = path / "config.json"
    try:
        config = decode_json(config_path.read_bytes(), dict[str, object])
    except FileNotFoundError as error:
        raise InputError(f"{path} is no model folder: it has no config.json") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{config_path} is not valid JSON: {error}") from error
    architecture, shape = shape_of_config(config, where=str(config_path))
    packing = packing_of(config, where=str(config_path))
    tensors: dict[str, Tensor] = {}
    for file_path in _shards(path):
        file = SafeTensors(file_path)
        if packing is not None:
            tensors |= unpacked(file, packing)
        for tensor_name in file.tensors:
            is_packed = packing is not None and tensor_name.endswith((".qweight", ".qzeros", ".scales", ".g_idx"))
            if not is_packed and not tensor_name.endswith("rotary_emb.inv_freq"):
                name = tensor_name.replace(".mlp.c_fc.", ".mlp.up_proj.").replace(".mlp.c_proj.", ".mlp.down_proj.")
                tensors[name] = _SafeTensor(tensor_name, file, file_path)
    if shape.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    if architecture.startswith("gemma"):
        tensors = {name: FromOne(tensor) if "norm" in name else tensor for name, tensor in tensors.items()}
    return WeightFile(
        path=path,
        kind="safetensors",
        architecture=architecture,
        shape=shape,
        metadata=config,
        tensors=_taken_apart(tensors, shape),
    )


class _ShardIndex(msgspec.Struct):
    weight_map: dict[str, str]


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    try:
        names = decode_json(index.read_bytes(), _ShardIndex).weight_map
    except msgspec.MsgspecError as error:
        raise InputError(f"{index} cannot be read: {error}") from error
    return [folder / name for name in sorted(set(names.values()))]


def _check_complete(weights: WeightFile) -> None:
    needed = _needed(weights.shape)
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


def _needed(shape: DecoderShape) -> dict[str, tuple[int, ...]]:
    """Every tensor that a decoder of this shape has, with its own shape."""
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    needed: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab_size, hidden)}

    def norm(name: str) -> None:
        needed[f"{name}.weight"] = (hidden,)
        if shape.layer_norm:
            needed[f"{name}.bias"] = (hidden,)

    def linear(name: str, rows: int, cols: int, *, bias: bool) -> None:
        needed[f"{name}.weight"] = (rows, cols)
        if bias:
            needed[f"{name}.bias"] = (rows,)

    norm("model.norm")
    if not shape.tie_word_embeddings:
        needed["lm_head.weight"] = (shape.vocab_size, hidden)
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        norm(f"{prefix}input_layernorm")
        norm(f"{prefix}post_attention_layernorm")
        if shape.sandwich_norms:
            norm(f"{prefix}pre_feedforward_layernorm")
            norm(f"{prefix}post_feedforward_layernorm")
        for part, rows in (("q", query), ("k", key_value), ("v", key_value)):
            linear(f"{prefix}self_attn.{part}_proj", rows, hidden, bias=shape.attention_bias)
        if shape.query_key_norm:
            needed |= {f"{prefix}self_attn.{part}_norm.weight": (shape.head_dim,) for part in ("q", "k")}
        linear(f"{prefix}self_attn.o_proj", hidden, query, bias=shape.output_bias)
        if shape.gated:
            linear(f"{prefix}mlp.gate_proj", inner, hidden, bias=shape.mlp_bias)
        linear(f"{prefix}mlp.up_proj", inner, hidden, bias=shape.mlp_bias)
        linear(f"{prefix}mlp.down_proj", hidden, inner, bias=shape.mlp_bias)
    return needed
