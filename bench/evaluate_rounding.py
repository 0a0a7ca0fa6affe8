"""How far each instruction set's kernels are from float32 on real weights: perplexity, divergence, best tokens.

The first bytes of a source file go through the decoder as one prompt, in steps of 256 tokens. The truth is the same
weights expanded to float32 with a float32 cache, where nothing is rounded. Every instruction set takes the stored bits.

`python bench/evaluate_rounding.py qwen2.5-coder-0.5b python/highrise/serve/scheduler.py 4096 amx avx512vnni`
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from highrise.core.catalogue import locate
from highrise.core.weights import open_weights
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.loader import make_decoder, plan_memory

STEP, THREADS = 256, 2


def log_probabilities(decoder: Any, ids: list[int]) -> np.ndarray:
    """Logarithms of the probabilities after each token, float32 (tokens, vocabulary)."""
    table = np.arange(-(-len(ids) // 16), dtype=np.int32)[None]
    pieces = []
    for start in range(0, len(ids), STEP):
        tokens = np.array(ids[start : start + STEP], np.int32)
        rows = np.arange(tokens.size, dtype=np.int32)
        logits = decoder.forward(tokens, rows + start, np.zeros_like(rows), table, rows)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        pieces.append(logits)
    return np.concatenate(pieces)


def main(model: str, text: str, size: str, *isas: str) -> None:
    path = locate(model)
    file = open_weights(path)
    ids = Tokenizer.for_weights(path).encode(Path(text).read_bytes()[: int(size)].decode("utf-8", "ignore"))
    truth: np.ndarray | None = None
    print(f"{model}, {size} bytes of {text}: {len(ids)} tokens, steps of {STEP}, {THREADS} threads")
    for isa in ("float32", *isas):
        plan = plan_memory(file.shape, threads=THREADS, num_pages=len(ids) // 16 + 1, max_context=None, kv="fp32")
        if isa == "float32":
            decoder = make_decoder(file, plan, weights="float32", kv="fp32")
        else:
            decoder = make_decoder(file, plan, weights="stored", isa=isa)
        began = time.perf_counter()
        got = log_probabilities(decoder, ids)
        seconds = time.perf_counter() - began
        del decoder
        truth = got if truth is None else truth
        chosen = np.array([row[token] for row, token in zip(got[:-1], ids[1:], strict=True)])
        of_truth = np.array([row[token] for row, token in zip(truth[:-1], ids[1:], strict=True)])
        divergence = np.mean([np.exp(row) @ (row - mine) for row, mine in zip(truth, got, strict=True)])
        print(
            f"{isa:12} perplexity {np.exp(-chosen.mean()):.4f}, log-probability of the text off by "
            f"{np.sqrt(((chosen - of_truth) ** 2).mean()):.4f} (rms), divergence {divergence:.6f}, "
            f"same best token {(got.argmax(1) == truth.argmax(1)).mean():.4f}, {len(ids) / seconds:.0f} tokens/s"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
