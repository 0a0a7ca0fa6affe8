"""Attention of one key-value head over pages in half precision and of 8 bits, one thread, beside torch SDPA and numpy.

Jobs in the shape of the coder weights (7 query heads share a key-value head, 64 wide): one token over 1,024 keys, the
last 8 tokens of them, and a whole prompt of 1,024. Pages lie in random order; the peers are given contiguous keys and
values in float32 or bfloat16, the whole prompt as `is_causal`, which is torch's fast way.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from tests.reference import attention

from highrise.core.native import csrc

GROUP, DIM, KEYS, PAGE = 7, 64, 1024, 16
TOKENS = [1, 8, 1024]
rng = np.random.default_rng(0)
keys, values = (x.astype(np.float16).astype(np.float32) for x in rng.standard_normal((2, KEYS, DIM)))
table = rng.permutation(KEYS // PAGE).astype(np.int32)
cache = attention.pack_pages(keys, values, table, KEYS // PAGE, PAGE, "float16")


eight = attention.pack_pages(keys, values, table, KEYS // PAGE, PAGE, "int8")


def queries(tokens: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(tokens).standard_normal((tokens * GROUP, DIM)).astype(np.float32) / np.sqrt(DIM)
    visible = np.repeat(np.arange(KEYS - tokens + 1, KEYS + 1, dtype=np.int32), GROUP)
    return x.astype(np.float32), visible


@functools.cache
def truth(tokens: int) -> np.ndarray:
    return attention.attend(*queries(tokens), keys, values)


def rounds(tokens: int) -> int:
    return 5 if tokens > 8 else 30


def note(benchmark, tokens: int, who: str, **more: str) -> None:
    benchmark.extra_info = {
        "path": f"attention, {tokens} tokens over {KEYS} keys",
        "who": who,
        "amount": 2 * GROUP * DIM * int(queries(tokens)[1][::GROUP].sum()) / 1e9,
        "unit": "GMAC",
    } | more


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("isa", csrc.available_isas())
def test_paged(benchmark, isa: str, tokens: int) -> None:
    q, visible = queries(tokens)
    got = csrc.attend(q, visible, cache, table, PAGE, "float16", isa=isa)
    np.testing.assert_allclose(got, truth(tokens), atol=1e-4)
    note(benchmark, tokens, "highrise" if isa == csrc.available_isas()[0] else f"highrise {isa}", isa=isa)
    benchmark.pedantic(csrc.attend, (q, visible, cache, table, PAGE, "float16"), {"isa": isa}, rounds=rounds(tokens))


@pytest.mark.parametrize("tokens", TOKENS)
def test_eight_bits(benchmark, tokens: int) -> None:
    q, visible = queries(tokens)
    got = csrc.attend(q, visible, eight, table, PAGE, "int8")
    np.testing.assert_allclose(got, truth(tokens), atol=0.02)
    note(benchmark, tokens, "highrise int8", note="keys and values of 8 bits")
    benchmark.pedantic(csrc.attend, (q, visible, eight, table, PAGE, "int8"), rounds=rounds(tokens))


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_torch(benchmark, kind: str, tokens: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    x, visible = queries(tokens)
    by_head = np.ascontiguousarray(x.reshape(tokens, GROUP, DIM).transpose(1, 0, 2))
    q, k, v = (torch.from_numpy(a)[None].to(getattr(torch, kind)) for a in (by_head, keys[None], values[None]))
    more: dict[str, object] = {"is_causal": True}
    if tokens < KEYS:
        more = {"attn_mask": torch.from_numpy(np.arange(KEYS) < visible[::GROUP, None]) if tokens > 1 else None}

    def run():
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True, **more)

    got = run()[0].float().numpy().transpose(1, 0, 2).reshape(-1, DIM)
    np.testing.assert_allclose(got, truth(tokens), atol=1e-4 if kind == "float32" else 3e-2)
    note(benchmark, tokens, f"torch {kind}", note=f"{kind}, contiguous")
    try:
        benchmark.pedantic(run, rounds=rounds(tokens), warmup_rounds=2)
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

    np.testing.assert_allclose(run(), truth(tokens), atol=1e-4)
    note(benchmark, tokens, "numpy", note="float32, contiguous")
    benchmark.pedantic(run, rounds=rounds(tokens), warmup_rounds=1)
