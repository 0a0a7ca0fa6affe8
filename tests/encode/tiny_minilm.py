"""A MiniLM folder of two layers with random weights, for tests that need a model and no download."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from highrise.core.safetensors import write_safetensors
from tests.encode.test_wordpiece import tokenizer_json

CONFIG = {
    "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 64, "type_vocab_size": 2,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip


def write_tiny_minilm(folder: Path, *, seed: int = 0) -> Path:
    """Write config.json, tokenizer.json and model.safetensors; the names are those of `BertModel`."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tokenizer = tokenizer_json()
    vocab_size = len(tokenizer["model"]["vocab"])  # type: ignore[index]
    config = {**CONFIG, "vocab_size": vocab_size}
    width, inner = 48, 96

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 0.3, shape).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(vocab_size, width),
        "embeddings.position_embeddings.weight": normal(64, width),
        "embeddings.token_type_embeddings.weight": normal(2, width),
        "embeddings.LayerNorm.weight": 1 + normal(width),
        "embeddings.LayerNorm.bias": normal(width),
    }
    for i in range(2):
        at = f"encoder.layer.{i}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            tensors[f"{at}.{part}.weight"], tensors[f"{at}.{part}.bias"] = normal(width, width), normal(width)
        tensors[f"{at}.intermediate.dense.weight"], tensors[f"{at}.intermediate.dense.bias"] = (
            normal(inner, width),
            normal(inner),
        )
        tensors[f"{at}.output.dense.weight"], tensors[f"{at}.output.dense.bias"] = normal(width, inner), normal(width)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            tensors[f"{at}.{part}.weight"], tensors[f"{at}.{part}.bias"] = 1 + normal(width), normal(width)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_safetensors(folder / "model.safetensors", tensors, metadata={"format": "pt"})
    return folder
