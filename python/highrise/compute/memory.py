"""Floor 1, memory: bytes of weights, keys and values, optimiser state and activations of a dense decoder.

Pure functions of a shape; every formula is stated where it is used. Knows nothing of devices or of time.
Sources: Rajbhandari et al. 2020 (ZeRO) and Megatron-LM for the bytes a parameter; Korthikanti et al. 2022 for the way
activations are counted, redone here for RMSNorm, grouped queries and SwiGLU.
"""

from __future__ import annotations

import math
from typing import Literal

from highrise.core.shape import DecoderShape

__all__ = [
    "FORMAT_BITS",
    "Sharding",
    "activation_bytes",
    "kv_bytes",
    "matrix_parameters",
    "state_bytes",
    "vector_parameters",
    "weight_bytes",
]

Sharding = Literal["none", "optimizer", "full"]
"""What data-parallel ranks share: nothing, the optimiser (ZeRO-1), or everything (ZeRO-3, FSDP)."""

FORMAT_BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.5, "int4": 5.0}
"""Bits a matrix element, scales counted: int8 has a 16-bit scale per 32, int4 a 16-bit scale and a 16-bit minimum per
32.
"""

_WEIGHT, _GRADIENT, _MASTER_AND_MOMENTS = 2, 4, 12


def vector_parameters(shape: DecoderShape) -> int:
    """Norm gains and biases: they stay at 16 bits whatever the format of the matrices."""
    bias = (shape.num_attention_heads + 2 * shape.num_key_value_heads) * shape.head_dim if shape.attention_bias else 0
    return shape.num_hidden_layers * (2 * shape.hidden_size + bias) + shape.hidden_size


def matrix_parameters(shape: DecoderShape) -> int:
    """Weights that a token is multiplied with: all matrices, the head (or tied embedding) once, no look-up."""
    embedding = 0 if shape.tie_word_embeddings else shape.vocab_size * shape.hidden_size
    return shape.num_parameters - vector_parameters(shape) - embedding


def weight_bytes(shape: DecoderShape, *, bits: float = 16.0) -> int:
    """Bytes of all weights: matrices at `bits` an element, vectors at 16 (at `bits` if that is more)."""
    vectors = vector_parameters(shape)
    return math.ceil(((shape.num_parameters - vectors) * bits + vectors * max(bits, 16.0)) / 8)


def kv_bytes(shape: DecoderShape, *, tokens: int, bits: float = 16.0) -> int:
    """Bytes of keys and values of `tokens` tokens: 2 x layers x key-value heads x head size x bits / 8 each."""
    return math.ceil(shape.kv_bytes_per_token * bits / 16) * tokens


def state_bytes(parameters: float, *, data_parallel: int = 1, sharding: Sharding = "none") -> float:
    """Bytes a device of weights, gradients and AdamW state in mixed precision.

    18 a parameter (Megatron): 2 weight, 4 float32 gradient, 4 + 4 + 4 float32 master weight and two moments.
    Sharded over DP ranks: optimizer 6 + 12/DP, full 18/DP.
    """
    local = _WEIGHT + _GRADIENT
    if sharding == "none":
        return parameters * (local + _MASTER_AND_MOMENTS)
    if sharding == "optimizer":
        return parameters * (local + _MASTER_AND_MOMENTS / data_parallel)
    return parameters * (local + _MASTER_AND_MOMENTS) / data_parallel


def activation_bytes(shape: DecoderShape, *, tokens: int, tensor_parallel: int = 1, recompute: bool = False) -> float:
    """Bytes kept for the backward pass of `tokens` tokens at 16 bits, attention scores never stored (flash attention).

    A layer and token: two residual inputs, two norm outputs (8h), queries and attention output (4q), keys and values
    (4kv), gate, up and product (6f), a float32 log-sum-exp a head (4a). Tensor and sequence parallelism divide all of
    it. With `recompute` only each layer's input (2h) stays, plus one whole layer. The head adds 10 bytes a vocabulary
    entry: 16-bit logits, float32 log-probabilities and their gradient.
    """
    query = shape.num_attention_heads * shape.head_dim
    key_value = shape.num_key_value_heads * shape.head_dim
    hidden = shape.hidden_size
    layer = 8 * hidden + 4 * query + 4 * key_value + 6 * shape.intermediate_size + 4 * shape.num_attention_heads
    layers = shape.num_hidden_layers
    kept = layers * 2 * hidden + layer if recompute else layers * layer
    return tokens * (kept + 10 * shape.vocab_size) / tensor_parallel
