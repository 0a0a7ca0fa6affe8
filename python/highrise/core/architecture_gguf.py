"""Floor 0, architecture of GGUF: the shape that a file's metadata describes, and the names its tensors go by.

Follows what llama.cpp's converter writes and its loader assumes (`gguf-py/gguf/tensor_mapping.py`,
`src/llama-model.cpp`). Knows nothing of how tensors are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from highrise.core.architecture import windows_of
from highrise.core.blocks import dequantise
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf
from highrise.core.rotary import rotary
from highrise.core.shape import DecoderShape, LayerKind, Rotary

__all__ = ["ARCHITECTURES", "hugging_face_name", "shape_of_gguf"]

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "starcoder2")

_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SANDWICH_NAMES = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def hugging_face_name(name: str, architecture: str, path: Path) -> tuple[str, str]:
    """`blk.3.attn_q.weight` -> (`model.layers.3.self_attn.q_proj.weight`, `attn_q`), or an `InputError`."""
    parts = name.split(".")
    if len(parts) == 2 and parts[0] in _TOP_NAMES:
        return f"{_TOP_NAMES[parts[0]]}.{parts[1]}", parts[0]
    layer_names = _LAYER_NAMES
    if architecture in ("gemma2", "gemma3"):
        layer_names = _LAYER_NAMES | _SANDWICH_NAMES
    elif architecture == "phi3":
        layer_names = _LAYER_NAMES | {"ffn_up": "mlp.gate_up_proj"}
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in layer_names:
        return f"model.layers.{parts[1]}.{layer_names[parts[2]]}.{parts[3]}", parts[2]
    raise InputError(f"{path} holds the tensor {name}, which is no part of a {architecture} decoder")


def shape_of_gguf(file: Gguf) -> tuple[str, DecoderShape]:
    """The architecture and the shape of an open file. `InputError` for what is not run, by name."""
    metadata, path = file.metadata, file.path
    architecture = str(metadata.get("general.architecture", "nothing"))
    if architecture not in ARCHITECTURES:
        raise InputError(f"{path} holds the architecture {architecture}; {', '.join(ARCHITECTURES)} are run")

    def number(key: str, default: float | None = None) -> float:
        value = metadata.get(f"{architecture}.{key}", default)
        if not isinstance(value, int | float):
            raise InputError(f"{path} lacks the number {architecture}.{key} in its metadata")
        return value

    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise InputError(f"{path} has no tensor token_embd.weight: it holds no whole decoder")
    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    if heads < 1:
        raise InputError(f"{path} has {architecture}.attention.head_count {heads}; at least 1 is needed")
    layer_norm = architecture == "starcoder2"
    gemma = architecture.startswith("gemma")
    head_dim = int(number("attention.key_length", hidden // heads))
    layers = int(number("block_count"))
    theta = float(number("rope.freq_base", 1e6 if architecture == "gemma3" else 10_000.0))
    shape = DecoderShape(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=int(number("attention.head_count_kv", heads)),
        intermediate_size=int(number("feed_forward_length")),
        vocab_size=embedding.shape[0],
        max_position_embeddings=int(number("context_length")),
        head_dim=head_dim,
        rope_theta=theta,
        rms_norm_eps=float(
            number("attention.layer_norm_epsilon" if layer_norm else "attention.layer_norm_rms_epsilon")
        ),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        tie_word_embeddings="output.weight" not in file.tensors,
        layer_norm=layer_norm,
        query_key_norm=architecture in ("qwen3", "gemma3"),
        sandwich_norms=architecture in ("gemma2", "gemma3"),
        output_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_down.bias" in file.tensors,
        gated=not layer_norm,
        activation="gelu" if gemma or layer_norm else "silu",
        embedding_scale=hidden**0.5 if gemma else 1.0,
        # The largest Gemmas (46 and 62 layers) divide by the width of a head that the hidden size would give.
        attention_scale=(hidden / heads) ** -0.5 if (architecture, layers) in (("gemma2", 46), ("gemma3", 62)) else 0.0,
        attention_softcap=float(number("attn_logit_softcapping", 50.0)) if architecture == "gemma2" else 0.0,
        logit_softcap=float(number("final_logit_softcapping", 30.0)) if architecture == "gemma2" else 0.0,
    )
    scaling = _scaling(file, architecture, number, head_dim)
    table = rotary(scaling, theta=theta, head_dim=head_dim, where=str(path))
    tables = [_divided(table, file, head_dim)]
    window = int(number("attention.sliding_window", 4096 if architecture == "gemma2" else 0))
    slides: Callable[[int], bool] = {
        "gemma2": lambda layer: layer % 2 == 0,
        "gemma3": lambda layer: (layer + 1) % 6 != 0,
    }.get(architecture, lambda layer: architecture == "phi3")
    windows = windows_of(shape, window, slides)
    if architecture == "gemma3":
        local = float(number("rope.freq_base_swa", 10_000.0))
        tables.append(rotary({}, theta=local, head_dim=head_dim, where=str(path)))
        kinds = tuple(LayerKind(windows[layer], int(slides(layer))) for layer in range(layers))
    else:
        kinds = tuple(LayerKind(window) for window in windows) if any(windows) else ()
        if tables[0] == rotary({}, theta=theta, head_dim=head_dim, where=str(path)):
            tables = []
    return architecture, msgspec.structs.replace(shape, rotary=tuple(tables), layer_kinds=kinds)


def _scaling(file: Gguf, architecture: str, number: Callable[..., float], head_dim: int) -> Mapping[str, object]:
    """The scaling in the words of Hugging Face."""
    kind = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    if "rope_factors_long.weight" in file.tensors or "rope_factors_short.weight" in file.tensors:
        kind = "longrope"
    scaling: dict[str, object] = {"partial_rotary_factor": number("rope.dimension_count", head_dim) / head_dim}
    if kind == "none":
        return scaling
    scaling |= {"rope_type": kind, "factor": number("rope.scaling.factor", 1.0)}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = number("rope.scaling.original_context_length")
    return scaling


def _divided(table: Rotary, file: Gguf, head_dim: int) -> Rotary:
    """The table with each frequency divided by what `rope_freqs.weight` holds for it (Llama 3)."""
    stored = file.tensors.get("rope_freqs.weight")
    if stored is None:
        return table
    factors = dequantise(np.array(file.read("rope_freqs.weight")), stored.type)
    if len(factors) != len(table.frequencies) or not np.all(factors > 0):
        raise InputError(
            f"{file.path} has {len(factors)} rope_freqs for heads of {head_dim}; {len(table.frequencies)} "
            "positive ones are needed"
        )
    frequencies = tuple(frequency / float(factor) for frequency, factor in zip(table.frequencies, factors, strict=True))
    return Rotary(frequencies, table.magnitude)
