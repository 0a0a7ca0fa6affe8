"""Floor 6, adapter: reads a LoRA adapter in PEFT's file format. Knows no decoder and needs no torch."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.blocks import dequantise
from highrise.core.errors import InputError
from highrise.core.json_text import decode_json
from highrise.core.safetensors import SafeTensors
from highrise.core.shape import DecoderShape

__all__ = ["LowRank", "read_adapter"]

_PREFIX = "base_model.model."
_KINDS = ("lora_A", "lora_B")


class LowRank(msgspec.Struct, frozen=True):
    """output += scale * b @ (a @ input). R rank, I input, O output."""

    a_RI: npt.NDArray[np.float32]  # noqa: N815
    b_OR: npt.NDArray[np.float32]  # noqa: N815
    scale: float


class _Config(msgspec.Struct):
    r: int
    lora_alpha: float
    peft_type: str = "LORA"
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    fan_in_fan_out: bool = False


def read_adapter(folder: Path, shape: DecoderShape) -> dict[str, LowRank]:
    """Modules (`model.layers.0.self_attn.q_proj`) with their two matrices.

    Raises `InputError` for a missing or damaged file, another kind of adapter, or one made for another shape.
    """
    config = _read_config(folder / "adapter_config.json")
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise InputError(f"{folder} is no adapter folder: it has no {path.name}")
    file = SafeTensors(path)
    parts: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for key, stored in file.tensors.items():
        name = key.removeprefix(_PREFIX).removesuffix(".weight")
        module, _, kind = name.rpartition(".")
        if kind not in _KINDS or len(stored.shape) != 2:
            raise InputError(f"{path} holds the tensor {key}, which is no part of a plain LoRA adapter")
        parts.setdefault(module, {})[kind] = dequantise(file.raw(key), stored.dtype).reshape(stored.shape)
    adapter = {}
    for module, pair in parts.items():
        if set(pair) != set(_KINDS):
            raise InputError(f"{path} has only {' '.join(pair)} of {module}; both matrices are needed")
        a_RI, b_OR = np.ascontiguousarray(pair["lora_A"]), np.ascontiguousarray(pair["lora_B"])  # noqa: N806
        rows, cols = _expected(module, shape, path)
        rank = a_RI.shape[0]
        if a_RI.shape[1] != cols or b_OR.shape != (rows, rank):
            raise InputError(
                f"{path}: {module} has A {a_RI.shape} and B {b_OR.shape}, the model wants ({rank}, {cols}) and "
                f"({rows}, {rank}); the adapter was made for another model"
            )
        adapter[module] = LowRank(a_RI, b_OR, _scale(config, module, rank))
    return adapter


def _read_config(path: Path) -> _Config:
    try:
        config = decode_json(path.read_bytes(), _Config)
    except FileNotFoundError as error:
        raise InputError(f"{path.parent} is no adapter folder: it has no {path.name}") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} is damaged or not PEFT's: {error}") from error
    refused = {
        f"kind {config.peft_type}": config.peft_type != "LORA",
        "DoRA": config.use_dora,
        f"trained biases ({config.bias})": config.bias != "none",
        f"whole modules {config.modules_to_save}": bool(config.modules_to_save),
        "transposed weights (fan_in_fan_out)": config.fan_in_fan_out,
    }
    for what, found in refused.items():
        if found:
            raise InputError(f"{path} describes an adapter with {what}; plain LoRA is run, merge this one instead")
    if config.r < 1:
        raise InputError(f"{path} has rank {config.r}; it must be at least 1")
    return config


def _scale(config: _Config, module: str, rank: int) -> float:
    alpha = next((value for key, value in config.alpha_pattern.items() if module.endswith(key)), config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _expected(module: str, shape: DecoderShape, path: Path) -> tuple[int, int]:
    """Rows and columns of the weight that a module adapts."""
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    sizes = {
        "self_attn.q_proj": (query, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, query),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    parts = module.split(".")
    known = len(parts) == 5 and parts[:2] == ["model", "layers"] and parts[2].isdigit()
    if not known or int(parts[2]) >= shape.num_hidden_layers or ".".join(parts[3:]) not in sizes:
        raise InputError(f"{path} adapts {module}; the projections of attention and MLP of each layer can be adapted")
    return sizes[".".join(parts[3:])]
