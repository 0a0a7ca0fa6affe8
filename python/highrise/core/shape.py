"""Floor 0, shape: the dimensions of a Llama- or Qwen-shaped decoder, shared by plan, train, align and serve.

Field names are those of Hugging Face's `config.json`. Knows nothing of weights or kernels.
"""

from __future__ import annotations

import msgspec

from highrise.core.errors import ConfigError

__all__ = ["DecoderShape"]


class DecoderShape(msgspec.Struct, frozen=True, kw_only=True):
    """RMSNorm, RoPE (rotate-half layout), grouped-query attention, SwiGLU; optional QKV bias; tied or untied head."""

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

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} attention heads cannot be shared by {self.num_key_value_heads} key-value "
                "heads: the first must be a multiple of the second"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary embeddings need an even one")

    @property
    def num_parameters(self) -> int:
        """Weights in the decoder, embeddings included."""
        query = self.num_attention_heads * self.head_dim
        key_value = self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * query + 2 * key_value)
        bias = query + 2 * key_value if self.attention_bias else 0
        layer = attention + bias + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size
        head = 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + self.vocab_size * self.hidden_size + head + self.hidden_size

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values a token at 16 bits."""
        return 2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * 2
