"""A decoder over pages in plain numpy, one token after another: slow, obvious, and exactly the same in every batch."""

from __future__ import annotations

import numpy as np

from highrise.core.shape import DecoderShape

TINY = DecoderShape(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    vocab_size=96,
    max_position_embeddings=256,
    head_dim=8,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)


def random_weights(shape: DecoderShape, seed: int = 0) -> dict[str, np.ndarray]:
    """float32 tensors under Hugging Face names, large enough that the answers are varied."""
    generator = np.random.default_rng(seed)

    def matrix(rows: int, cols: int) -> np.ndarray:
        return (generator.standard_normal((rows, cols)) / np.sqrt(cols)).astype(np.float32)

    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    hidden, inner = shape.hidden_size, shape.intermediate_size
    weights = {
        "model.embed_tokens.weight": 4 * matrix(shape.vocab_size, hidden),
        "model.norm.weight": np.ones(hidden, np.float32),
    }
    for layer in range(shape.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}input_layernorm.weight": np.ones(hidden, np.float32),
            f"{prefix}self_attn.q_proj.weight": 2 * matrix(query, hidden),
            f"{prefix}self_attn.k_proj.weight": 2 * matrix(key_value, hidden),
            f"{prefix}self_attn.v_proj.weight": 2 * matrix(key_value, hidden),
            f"{prefix}self_attn.o_proj.weight": 2 * matrix(hidden, query),
            f"{prefix}post_attention_layernorm.weight": np.ones(hidden, np.float32),
            f"{prefix}mlp.gate_proj.weight": 2 * matrix(inner, hidden),
            f"{prefix}mlp.up_proj.weight": 2 * matrix(inner, hidden),
            f"{prefix}mlp.down_proj.weight": 2 * matrix(hidden, inner),
        }
    return weights


class PagedDecoder:
    """The three methods that `serve.forward.Decoder` asks for. Unwritten slots are NaN, so reading one shows."""

    def __init__(self, shape: DecoderShape, weights: dict[str, np.ndarray], *, num_pages: int, page_size: int) -> None:
        self.shape, self.weights, self.page_size = shape, weights, page_size
        slots = (shape.num_hidden_layers, num_pages * page_size, shape.num_key_value_heads, shape.head_dim)
        self.keys = np.full(slots, np.nan, np.float32)
        self.values = np.full(slots, np.nan, np.float32)
        self.num_computed = 0
        self.adapters: list[dict[str, np.ndarray] | None] = []

    def add_adapter(self):
        free = [*(index for index, one in enumerate(self.adapters) if one is None), len(self.adapters)][0]
        self.adapters[free : free + 1] = [{}]
        return free

    def set_adapter(self, adapter, name, a, b, scale, exact=False):
        self.adapters[adapter][name] = np.float32(scale) * (b @ a)

    def remove_adapter(self, adapter):
        assert self.adapters[adapter] is not None
        self.adapters[adapter] = None

    def forward(self, tokens, positions, sequence, page_table, logit_rows, adapters=None):
        states = self.hidden(tokens, positions, sequence, page_table, adapters)
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return (
            np.stack([head @ states[row] for row in logit_rows]) if len(logit_rows) else np.empty((0, len(head)), "f4")
        )

    def hidden(self, tokens, positions, sequence, page_table, adapters=None):
        assert len(tokens) == len(positions) == len(sequence)
        rows = [
            self._token(int(token), int(position), page_table[row], -1 if adapters is None else int(adapters[row]))
            for token, position, row in zip(tokens, positions, sequence, strict=True)
        ]
        self.num_computed += len(rows)
        return np.stack(rows)

    def copy_pages(self, src, dst):
        for source, target in zip(src, dst, strict=True):
            old, new = (slice(page * self.page_size, (page + 1) * self.page_size) for page in (source, target))
            self.keys[:, new], self.values[:, new] = self.keys[:, old].copy(), self.values[:, old].copy()

    def move_tokens(self, src, dst, src_start, dst_start, count):
        for offset in range(count):
            old, new = self._slot(src_start + offset, src), self._slot(dst_start + offset, dst)
            for layer in range(self.shape.num_hidden_layers):
                self.keys[layer, new] = self._rotate(self.keys[layer, old], dst_start - src_start)
                self.values[layer, new] = self.values[layer, old]

    def _slot(self, position: int, pages: np.ndarray) -> int:
        page = int(pages[position // self.page_size])
        assert page >= 0, f"position {position} has no page"
        return page * self.page_size + position % self.page_size

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x) + self.shape.rms_norm_eps) * self.weights[name]

    def _rotate(self, heads: np.ndarray, position: int) -> np.ndarray:
        half = self.shape.head_dim // 2
        angles = position / self.shape.rope_theta ** (np.arange(half) / half)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        first, second = heads[:, :half], heads[:, half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=1)

    def _token(self, token: int, position: int, pages: np.ndarray, adapter: int) -> np.ndarray:
        shape, w = self.shape, self.weights
        changes = self.adapters[adapter] if adapter >= 0 else {}
        assert changes is not None, f"adapter {adapter} was removed"
        x = w["model.embed_tokens.weight"][token]
        own = self._slot(position, pages)
        group = shape.num_attention_heads // shape.num_key_value_heads
        for layer in range(shape.num_hidden_layers):
            prefix = f"model.layers.{layer}."
            window = shape.layer_kinds[layer].window if shape.layer_kinds else 0
            first = max(position + 1 - window, 0) if window else 0
            slots = [self._slot(place, pages) for place in range(first, position + 1)]

            def project(part: str, x: np.ndarray, prefix: str = prefix) -> np.ndarray:
                out = w[f"{prefix}{part}_proj.weight"] @ x
                change = changes.get(f"{prefix}{part}_proj.weight")
                out = out if change is None else out + change @ x
                bias = w.get(f"{prefix}{part}_proj.bias")
                return out if bias is None else out + bias

            normed = self._norm(x, f"{prefix}input_layernorm.weight")
            query = self._rotate(project("self_attn.q", normed).reshape(-1, shape.head_dim), position)
            key = self._rotate(project("self_attn.k", normed).reshape(-1, shape.head_dim), position)
            self.keys[layer, own] = key
            self.values[layer, own] = project("self_attn.v", normed).reshape(-1, shape.head_dim)
            attended = np.empty_like(query)
            for head in range(shape.num_attention_heads):
                scores = self.keys[layer, slots, head // group] @ query[head] / np.sqrt(np.float32(shape.head_dim))
                scores = np.exp(scores - scores.max())
                attended[head] = (scores / scores.sum()) @ self.values[layer, slots, head // group]
            x = x + project("self_attn.o", attended.reshape(-1))
            normed = self._norm(x, f"{prefix}post_attention_layernorm.weight")
            gate = project("mlp.gate", normed)
            x = x + project("mlp.down", gate / (1 + np.exp(-gate)) * project("mlp.up", normed))
        return self._norm(x, "model.norm.weight")
