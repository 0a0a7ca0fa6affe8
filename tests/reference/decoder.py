"""The decoder step, slow and obvious: float32 numpy, one sequence at a time, no cache, no quantised activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from highrise.core.shape import DecoderShape

Array = NDArray[np.float32]


def rms_norm(x_TH: Array, weight_H: Array, epsilon: float) -> Array:
    variance = np.mean(x_TH.astype(np.float64) ** 2, axis=-1, keepdims=True)
    return (x_TH / np.sqrt(variance + epsilon) * weight_H).astype(np.float32)


def rotate(x_TND: Array, positions_T: NDArray[np.int32], theta: float) -> Array:
    """Rotary embedding over halves of the head (Su et al. 2021, in the layout of Hugging Face)."""
    head_dim = x_TND.shape[-1]
    frequencies = theta ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    angles = positions_T[:, None, None].astype(np.float64) * frequencies
    cosine, sine = np.cos(angles), np.sin(angles)
    a, b = np.split(x_TND, 2, axis=-1)
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1).astype(np.float32)


def attend(q_TND: Array, k_TKD: Array, v_TKD: Array) -> Array:
    """Causal attention of a whole sequence; query head n looks at key-value head n // (N / K)."""
    tokens, heads, head_dim = q_TND.shape
    group = heads // k_TKD.shape[1]
    out = np.zeros_like(q_TND)
    for head in range(heads):
        scores = q_TND[:, head] @ k_TKD[:, head // group].T / np.sqrt(head_dim)
        scores[np.triu_indices(tokens, 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ v_TKD[:, head // group]
    return out


def hidden_states(shape: DecoderShape, weights: Mapping[str, Array], tokens: list[int]) -> Array:
    """States after the last norm, (tokens, hidden), of one sequence from position 0."""
    count, head_dim = len(tokens), shape.head_dim
    positions = np.arange(count, dtype=np.int32)
    x = weights["model.embed_tokens.weight"][tokens]
    for index in range(shape.num_hidden_layers):
        prefix = f"model.layers.{index}."

        def linear(inputs: Array, name: str, prefix: str = prefix) -> Array:
            out = inputs @ weights[f"{prefix}{name}.weight"].T
            bias = weights.get(f"{prefix}{name}.bias")
            return out if bias is None else out + bias.reshape(-1)

        normed = rms_norm(x, weights[f"{prefix}input_layernorm.weight"].reshape(-1), shape.rms_norm_eps)
        q = linear(normed, "self_attn.q_proj").reshape(count, -1, head_dim)
        k = linear(normed, "self_attn.k_proj").reshape(count, -1, head_dim)
        v = linear(normed, "self_attn.v_proj").reshape(count, -1, head_dim)
        q, k = rotate(q, positions, shape.rope_theta), rotate(k, positions, shape.rope_theta)
        x = x + linear(attend(q, k, v).reshape(count, -1), "self_attn.o_proj")
        normed = rms_norm(x, weights[f"{prefix}post_attention_layernorm.weight"].reshape(-1), shape.rms_norm_eps)
        gate, up = linear(normed, "mlp.gate_proj"), linear(normed, "mlp.up_proj")
        x = x + linear(gate / (1.0 + np.exp(-gate)) * up, "mlp.down_proj")
    return rms_norm(x, weights["model.norm.weight"].reshape(-1), shape.rms_norm_eps)


def logits(shape: DecoderShape, weights: Mapping[str, Array], tokens: list[int]) -> Array:
    """Logits of every position, (tokens, vocabulary)."""
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return hidden_states(shape, weights, tokens) @ head.T
