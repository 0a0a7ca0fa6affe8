"""Attention of one key-value head over half-precision pages, one thread, beside torch SDPA and numpy.

Two jobs in the shape of the coder weights (7 query heads share a key-value head, 64 wide): one token over 2,048 keys,
and 8 tokens at the end of them. Pages lie in random order; the peers are given contiguous float32 keys and values.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.reference import attention

from highrise.core.native import csrc

GROUP, DIM, KEYS, PAGE = 7, 64, 2048, 16
TOKENS = [1, 8]
rng = np.random.default_rng(0)
keys, values = (x.astype(np.float16).astype(np.float32) for x in rng.standard_normal((2, KEYS, DIM)))
table = rng.permutation(KEYS // PAGE).astype(np.int32)
cache = attention.pack_pages(keys, values, table, KEYS // PAGE, PAGE, True)


def queries(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(tokens).standard_normal((tokens * GROUP, DIM)).astype(np.float32) / np.sqrt(DIM)
    visible = np.repeat(np.arange(KEYS - tokens + 1, KEYS + 1, dtype=np.int32), GROUP)
    return x.astype(np.float32), visible


def note(benchmark, tokens: int, who: str, **more: str) -> None:
    benchmark.extra_info = {
        "path": f"attention, {tokens} tokens over {KEYS} keys",
        "who": who,
        "amount": 2 * GROUP * tokens * KEYS * DIM / 1e9,
        "unit": "GMAC",
    } | more


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("isa", [isa for isa in csrc.available_isas() if isa != "portable"] or ["portable"])
def test_paged(benchmark, isa: str, tokens: int) -> None:
    q, visible = queries(tokens)
    got = csrc.attend(q, visible, cache, table, PAGE, True, isa=isa)
    np.testing.assert_allclose(got, attention.attend(q, visible, keys, values), atol=1e-4)
    note(benchmark, tokens, "highrise" if isa == csrc.available_isas()[0] else f"highrise {isa}", isa=isa)
    benchmark.pedantic(csrc.attend, (q, visible, cache, table, PAGE, True), {"isa": isa}, rounds=30, warmup_rounds=3)


@pytest.mark.parametrize("tokens", TOKENS)
def test_torch(benchmark, tokens: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    q, visible = queries(tokens)
    q4, k4, v4 = (torch.from_numpy(x)[None, None] for x in (q, keys, values))
    mask = torch.from_numpy(np.arange(KEYS) < visible[:, None])[None, None]
    run = torch.nn.functional.scaled_dot_product_attention
    np.testing.assert_allclose(
        run(q4, k4, v4, mask, scale=1.0)[0, 0].numpy(), attention.attend(q, visible, keys, values), atol=1e-4
    )
    note(benchmark, tokens, "torch", note="float32, contiguous")
    try:
        benchmark.pedantic(lambda: run(q4, k4, v4, mask, scale=1.0), rounds=30, warmup_rounds=3)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("tokens", TOKENS)
def test_numpy(benchmark, tokens: int) -> None:
    q, visible = queries(tokens)
    hidden = np.where(np.arange(KEYS) < visible[:, None], np.float32(0), np.float32(-1e30))

    def run() -> np.ndarray:
        scores = q @ keys.T + hidden
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True) @ values

    note(benchmark, tokens, "numpy", note="float32, contiguous")
    benchmark.pedantic(run, rounds=30, warmup_rounds=3)
