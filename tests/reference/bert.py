"""A BERT encoder after its embeddings in plain numpy, a text at a time: what `csrc/serve/encoder.h` must agree with."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["encode_text", "gelu", "layer_norm", "random_tensors"]


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float) -> np.ndarray:
    """Over the last axis, in double precision."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    """The exact one, with the error function."""
    return np.array([value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.ravel()]).reshape(x.shape)


def random_tensors(rng: np.random.Generator, *, hidden: int, layers: int, inner: int) -> dict[str, np.ndarray]:
    """float32 tensors of one encoder under their Hugging Face names."""
    tensors: dict[str, np.ndarray] = {}

    def linear(name: str, rows: int, cols: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, cols**-0.5, (rows, cols)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, rows).astype(np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"] = rng.normal(1, 0.1, hidden).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, hidden).astype(np.float32)

    norm("embeddings.LayerNorm")
    for index in range(layers):
        at = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", hidden, hidden)
        linear(f"{at}.attention.output.dense", hidden, hidden)
        norm(f"{at}.attention.output.LayerNorm")
        linear(f"{at}.intermediate.dense", inner, hidden)
        linear(f"{at}.output.dense", hidden, inner)
        norm(f"{at}.output.LayerNorm")
    return tensors


def encode_text(
    tensors: dict[str, np.ndarray], embedded: np.ndarray, *, layers: int, heads: int, epsilon: float
) -> np.ndarray:
    """The vector of one text, (hidden,), of its embedded tokens (T, hidden)."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T.astype(np.float64) + tensors[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return layer_norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], epsilon)

    x = norm("embeddings.LayerNorm", embedded)
    width = x.shape[1] // heads
    for index in range(layers):
        at = f"encoder.layer.{index}"
        query, key, value = (linear(f"{at}.attention.self.{part}", x) for part in ("query", "key", "value"))
        context = np.empty_like(x)
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = query[:, own] @ key[:, own].T / math.sqrt(width)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            context[:, own] = weights / weights.sum(1, keepdims=True) @ value[:, own]
        x = norm(f"{at}.attention.output.LayerNorm", x + linear(f"{at}.attention.output.dense", context))
        x = norm(
            f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", gelu(linear(f"{at}.intermediate.dense", x)))
        )
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)
