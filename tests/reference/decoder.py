"""The decoder step, slow and obvious: float32 numpy, one sequence at a time, no cache, no quantised activations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from highrise.core.shape import DecoderShape, LayerKind, Rotary

Array = NDArray[np.float32]


def rms_norm(x_TH: Array, weight_H: Array, epsilon: float) -> Array:
    variance = np.mean(x_TH.astype(np.float64) ** 2, axis=-1, keepdims=True)
    return (x_TH / np.sqrt(variance + epsilon) * weight_H).astype(np.float32)


def layer_norm(x_TH: Array, weight_H: Array, bias_H: Array, epsilon: float) -> Array:
    centred = x_TH.astype(np.float64) - np.mean(x_TH.astype(np.float64), axis=-1, keepdims=True)
    variance = np.mean(centred**2, axis=-1, keepdims=True)
    return (centred / np.sqrt(variance + epsilon) * weight_H + bias_H).astype(np.float32)


def turn(x_TND: Array, positions_T: NDArray[np.int32], table: Rotary) -> Array:
    """Rotary embedding over halves of what is turned (Su et al. 2021, in the layout of Hugging Face)."""
    turned = 2 * len(table.frequencies)
    angles = positions_T[:, None, None].astype(np.float64) * np.array(table.frequencies)
    cosine, sine = np.cos(angles) * table.magnitude, np.sin(angles) * table.magnitude
    a, b = np.split(x_TND[..., :turned], 2, axis=-1)
    parts = [a * cosine - b * sine, b * cosine + a * sine, x_TND[..., turned:]]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def plain_table(head_dim: int, theta: float) -> Rotary:
    return Rotary(tuple(theta ** (-2.0 * np.arange(head_dim // 2) / head_dim)))


def rotate(x_TND: Array, positions_T: NDArray[np.int32], theta: float) -> Array:
    return turn(x_TND, positions_T, plain_table(x_TND.shape[-1], theta))


def attend(
    q_TND: Array, k_TKD: Array, v_TKD: Array, *, scale: float = 0.0, softcap: float = 0.0, window: int = 0
) -> Array:
    """Causal attention of a whole sequence; query head n looks at key-value head n // (N / K)."""
    tokens, heads, head_dim = q_TND.shape
    group = heads // k_TKD.shape[1]
    out = np.zeros_like(q_TND)
    for head in range(heads):
        scores = q_TND[:, head] @ k_TKD[:, head // group].T * (scale or 1 / np.sqrt(head_dim))
        if softcap:
            scores = softcap * np.tanh(scores / softcap)
        scores[np.triu_indices(tokens, 1)] = -np.inf
        if window:
            scores[np.tril_indices(tokens, -window)] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = weights / weights.sum(axis=-1, keepdims=True) @ v_TKD[:, head // group]
    return out


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1.0 + np.exp(-x))


def hidden_states(shape: DecoderShape, weights: Mapping[str, Array], tokens: list[int]) -> Array:
    """States after the last norm, (tokens, hidden), of one sequence from position 0."""
    count, head_dim = len(tokens), shape.head_dim
    positions = np.arange(count, dtype=np.int32)
    tables = shape.rotary or (plain_table(head_dim, shape.rope_theta),)
    act = gelu if shape.activation == "gelu" else silu

    def linear(inputs: Array, name: str) -> Array:
        out = inputs @ weights[f"{name}.weight"].T
        bias = weights.get(f"{name}.bias")
        return out if bias is None else out + bias.reshape(-1)

    def norm(inputs: Array, name: str) -> Array:
        weight = weights[f"{name}.weight"].reshape(-1)
        if shape.layer_norm:
            return layer_norm(inputs, weight, weights[f"{name}.bias"].reshape(-1), shape.rms_norm_eps)
        return rms_norm(inputs, weight, shape.rms_norm_eps)

    x = weights["model.embed_tokens.weight"][tokens] * np.float32(shape.embedding_scale)
    for index in range(shape.num_hidden_layers):
        prefix = f"model.layers.{index}."
        kind = shape.layer_kinds[index] if shape.layer_kinds else LayerKind()
        normed = norm(x, f"{prefix}input_layernorm")
        q, k, v = (linear(normed, f"{prefix}self_attn.{part}_proj").reshape(count, -1, head_dim) for part in "qkv")
        if shape.query_key_norm:
            q, k = norm(q, f"{prefix}self_attn.q_norm"), norm(k, f"{prefix}self_attn.k_norm")
        q, k = turn(q, positions, tables[kind.rotary]), turn(k, positions, tables[kind.rotary])
        mixed = attend(
            q, k, v, scale=shape.attention_scale, softcap=shape.attention_softcap, window=kind.window
        ).reshape(count, -1)
        branch = linear(mixed, f"{prefix}self_attn.o_proj")
        if shape.sandwich_norms:
            x = x + norm(branch, f"{prefix}post_attention_layernorm")
            normed = norm(x, f"{prefix}pre_feedforward_layernorm")
        else:
            x = x + branch
            normed = norm(x, f"{prefix}post_attention_layernorm")
        up = linear(normed, f"{prefix}mlp.up_proj")
        middle = act(linear(normed, f"{prefix}mlp.gate_proj")) * up if shape.gated else act(up)
        branch = linear(middle.astype(np.float32), f"{prefix}mlp.down_proj")
        x = x + (norm(branch, f"{prefix}post_feedforward_layernorm") if shape.sandwich_norms else branch)
    return norm(x, "model.norm")


def logits(shape: DecoderShape, weights: Mapping[str, Array], tokens: list[int]) -> Array:
    """Logits of every position, (tokens, vocabulary)."""
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    out = hidden_states(shape, weights, tokens) @ head.T
    return shape.logit_softcap * np.tanh(out / shape.logit_softcap) if shape.logit_softcap else out
