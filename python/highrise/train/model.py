"""Floor 4, model: the Llama- or Qwen-shaped decoder in torch.

RMSNorm, rotary embeddings (rotate-half), grouped-query attention, SwiGLU, optional QKV bias, tied or untied head.
Module names are Hugging Face's, so that the state dict is the file. Knows nothing of files, losses or schedules.

Axes: B sequences, T positions, D width, H heads, K key-value heads, E head size, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their axes)
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from highrise.core.errors import ConfigError
from highrise.core.shape import DecoderShape

__all__ = ["Decoder"]


class Decoder(nn.Module):
    """A decoder of `shape` with freshly drawn weights (normal, 0.02; output projections scaled down with the depth)."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        if not shape.is_plain:
            raise ConfigError("trained are the shapes of llama and qwen2, and this decoder has other blocks than they")
        self.shape = shape
        self.model = _Body(shape)
        self.lm_head: nn.Linear | None = None
        if not shape.tie_word_embeddings:
            self.lm_head = nn.Linear(shape.hidden_size, shape.vocab_size, bias=False)
        self.recompute = False
        """Recompute each layer in the backward pass instead of keeping its activations: less memory, a third slower."""
        if self.head_weight.device.type != "meta":
            self._draw()

    @property
    def head_weight(self) -> Tensor:
        """The output matrix (V, D); the embedding itself when tied."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def hidden(self, ids_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """The last hidden states (B, T, D), after the final norm, of token ids (B, T) at positions 0 .. T-1.

        With `segments_BT` (int, one row: 1 x T, equal numbers side by side) a token sees only tokens of its own
        segment: several samples share a row. Rotary embeddings are relative, so their positions need not start again.
        """
        lengths = None
        if segments_BT is not None:
            assert len(segments_BT) == 1, "segments are for one row at a time"
            lengths = torch.unique_consecutive(segments_BT[0], return_counts=True)[1].tolist()
        x_BTD = self.model.embed_tokens(ids_BT)
        cos_TE, sin_TE = self.model.rotation(ids_BT.shape[1], x_BTD)
        for layer in self.model.layers:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, cos_TE, sin_TE, lengths, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, cos_TE, sin_TE, lengths)
        out: Tensor = self.model.norm(x_BTD)
        return out

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of token ids (B, T)."""
        return F.linear(self.hidden(ids_BT), self.head_weight)

    @torch.no_grad()
    def _draw(self) -> None:
        small = 0.02 / (2 * self.shape.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=small if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)


class _Body(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self._theta, self._head_dim = shape.rope_theta, shape.head_dim

    def rotation(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (T, E) for positions 0 .. T-1, computed in float32, in the type of `like`."""
        even_E = torch.arange(0, self._head_dim, 2, dtype=torch.float32, device=like.device)
        angle_TE = torch.outer(
            torch.arange(length, dtype=torch.float32, device=like.device), self._theta ** (-even_E / self._head_dim)
        ).repeat(1, 2)
        return angle_TE.cos().to(like.dtype), angle_TE.sin().to(like.dtype)


class _Layer(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.mlp = _FeedForward(shape)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, lengths: Sequence[int] | None) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), cos_TE, sin_TE, lengths)
        out: Tensor = x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))
        return out


class _Attention(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self._head_dim = shape.head_dim
        self._repeat = shape.num_attention_heads // shape.num_key_value_heads
        query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, query, bias=shape.attention_bias)
        self.k_proj = nn.Linear(shape.hidden_size, key_value, bias=shape.attention_bias)
        self.v_proj = nn.Linear(shape.hidden_size, key_value, bias=shape.attention_bias)
        self.o_proj = nn.Linear(query, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, cos_TE: Tensor, sin_TE: Tensor, lengths: Sequence[int] | None) -> Tensor:
        batch, length, _ = x_BTD.shape
        q_BHTE, k_BKTE, v_BKTE = (
            projection(x_BTD).view(batch, length, -1, self._head_dim).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BHTE = q_BHTE * cos_TE + _rotate_half(q_BHTE) * sin_TE
        k_BKTE = k_BKTE * cos_TE + _rotate_half(k_BKTE) * sin_TE
        if self._repeat > 1:  # the fused kernel of a CPU knows no groups; repeating is cheap beside its fallback
            k_BKTE = k_BKTE.repeat_interleave(self._repeat, dim=1)
            v_BKTE = v_BKTE.repeat_interleave(self._repeat, dim=1)
        v_BKTE = v_BKTE.to(q_BHTE.dtype)
        if lengths is None:
            mixed_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BKTE, v_BKTE, is_causal=True)
        else:  # a segment at a time costs less than one masked square of the whole row
            parts = zip(*(tensor.split(lengths, dim=2) for tensor in (q_BHTE, k_BKTE, v_BKTE)), strict=True)
            mixed = [F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in parts]
            mixed_BHTE = torch.cat(mixed, dim=2)
        out: Tensor = self.o_proj(mixed_BHTE.transpose(1, 2).reshape(batch, length, -1))
        return out


class _FeedForward(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))
        return out


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)
