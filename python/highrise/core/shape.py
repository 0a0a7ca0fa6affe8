"""Floor 0, shape: dimensions of a decoder and the blocks it is made of, shared by plan, train, align and serve.

Dimensions have the names of Hugging Face's `config.json`; the rest says how the blocks differ from Llama's, so that one
decoder runs all of them. Knows nothing of weights, kernels or which architecture has which blocks.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from highrise.core.errors import ConfigError

__all__ = ["DIMENSIONS", "DecoderShape", "LayerKind", "Rotary"]


class Rotary(NamedTuple):
    """Angles of rotary embeddings: position times each of `frequencies`; cosine and sine are times `magnitude`.

    Fewer frequencies than half a head leave the rest of the head unturned.
    """

    frequencies: tuple[float, ...]
    magnitude: float = 1.0


class LayerKind(NamedTuple):
    """What may differ from layer to layer: tokens that a token sees (itself included; 0 is all), and a rotary table."""

    window: int = 0
    rotary: int = 0


class DecoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """RMSNorm, RoPE (rotate-half layout), grouped-query attention, SwiGLU; optional QKV bias; tied or untied head.

    That is Llama and Qwen2, `is_plain`. Every field after `tie_word_embeddings` changes one thing about it.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    head_dim: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    layer_norm: bool = False
    """Norms take the mean away and have biases (StarCoder2); `rms_norm_eps` is their epsilon."""
    query_key_norm: bool = False
    """RMSNorm of each head of queries and keys before they are turned (Qwen3, Gemma 3)."""
    sandwich_norms: bool = False
    """What attention and MLP give is normalised before it is added (Gemma 2 and 3)."""
    output_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    """down(act(gate) * up); else down(act(up)), in which case `activation` is "gelu"."""
    activation: Literal["silu", "gelu"] = "silu"
    """"gelu" is its tanh form."""
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    """What scores are multiplied with; 0 is 1 / sqrt(head_dim)."""
    attention_softcap: float = 0.0
    """Above 0, scores become cap * tanh(score / cap)."""
    logit_softcap: float = 0.0
    rotary: tuple[Rotary, ...] = ()
    """Empty: one plain table from `rope_theta`."""
    layer_kinds: tuple[LayerKind, ...] = ()
    """Empty, or one for each layer."""

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} attention heads cannot be shared by {self.num_key_value_heads} key-value "
                "heads: the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary embeddings need an even one")

    @property
    def is_plain(self) -> bool:
        """Whether this is a Llama or Qwen2 decoder and nothing more."""
        blocks = (field for field in msgspec.structs.fields(self) if field.name not in DIMENSIONS)
        return all(getattr(self, field.name) == field.default for field in blocks)

    @property
    def num_parameters(self) -> int:
        """Weights in the decoder, embeddings included."""
        query = self.num_attention_heads * self.head_dim
        key_value = self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * query + 2 * key_value)
        bias = query + 2 * key_value if self.attention_bias else 0
        bias += self.hidden_size if self.output_bias else 0
        projections = 3 if self.gated else 2
        bias += (projections - 1) * self.intermediate_size + self.hidden_size if self.mlp_bias else 0
        norm = self.hidden_size * (2 if self.layer_norm else 1)
        norms = (4 if self.sandwich_norms else 2) * norm + (2 * self.head_dim if self.query_key_norm else 0)
        layer = attention + bias + projections * self.hidden_size * self.intermediate_size + norms
        head = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size + head + norm

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values a token at 16 bits."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * 2


DIMENSIONS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "head_dim",
    "rope_theta",
    "rms_norm_eps",
    "attention_bias",
    "tie_word_embeddings",
)
"""The fields that a plain decoder has, all under the names of `config.json`."""
