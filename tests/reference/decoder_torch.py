"""The decoder, slow and obvious: one position, one head, one channel pair at a time, from a state dict."""

from __future__ import annotations

import math

import torch

from highrise.core.shape import DecoderShape


def _norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / math.sqrt(float((x * x).mean()) + eps) * weight


def _rotate(vector: torch.Tensor, position: int, theta: float) -> torch.Tensor:
    out, half = vector.clone(), len(vector) // 2
    for i in range(half):
        angle = position * theta ** (-2 * i / len(vector))
        a, b = float(vector[i]), float(vector[i + half])
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def reference_logits(state: dict[str, torch.Tensor], shape: DecoderShape, ids: list[int]) -> torch.Tensor:
    """Logits (T, V)."""
    size, group = shape.head_dim, shape.num_attention_heads // shape.num_key_value_heads
    xs = [state["model.embed_tokens.weight"][i] for i in ids]
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."

        def project(name: str, x: torch.Tensor, prefix: str = prefix) -> torch.Tensor:
            bias = state.get(f"{prefix}{name}.bias")
            out = state[f"{prefix}{name}.weight"] @ x
            return out if bias is None else out + bias

        queries, keys, values = [], [], []
        for position, x in enumerate(xs):
            y = _norm(x, state[prefix + "input_layernorm.weight"], shape.rms_norm_eps)
            queries.append([_rotate(h, position, shape.rope_theta) for h in project("self_attn.q_proj", y).split(size)])
            keys.append([_rotate(h, position, shape.rope_theta) for h in project("self_attn.k_proj", y).split(size)])
            values.append(list(project("self_attn.v_proj", y).split(size)))
        for position in range(len(xs)):
            heads = []
            for head in range(shape.num_attention_heads):
                scores = [
                    float(queries[position][head] @ keys[past][head // group]) / math.sqrt(size)
                    for past in range(position + 1)
                ]
                weights = [math.exp(score - max(scores)) for score in scores]
                mixed = sum(w * values[past][head // group] for past, w in enumerate(weights))
                heads.append(mixed / sum(weights))
            xs[position] = xs[position] + project("self_attn.o_proj", torch.cat(heads))
            y = _norm(xs[position], state[prefix + "post_attention_layernorm.weight"], shape.rms_norm_eps)
            gate = project("mlp.gate_proj", y)
            xs[position] = xs[position] + project(
                "mlp.down_proj", gate * torch.sigmoid(gate) * project("mlp.up_proj", y)
            )
    head = state.get("lm_head.weight", state["model.embed_tokens.weight"])
    return torch.stack([head @ _norm(x, state["model.norm.weight"], shape.rms_norm_eps) for x in xs])
