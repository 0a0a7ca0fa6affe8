"""Keys and values at 8 bits: the very numbers of the reference, near to those of floats, in half of the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.shape import DecoderShape
from highrise.core.weights import open_weights
from highrise.encode.tokenizer import Tokenizer
from highrise.serve import loader, scheduler
from highrise.serve.engine import Engine
from highrise.serve.loader import plan_memory
from highrise.serve.request import Request, Sampling
from tests.reference import attention
from tests.reference.paged_decoder import PagedDecoder
from tests.serve.engine_parts import ids_of
from tests.serve.isas import each_isa
from tests.serve.test_decoder import QWEN, after_a_move, int32, make_decoder, random_weights, run_whole
from tests.serve.test_http_engine import STEADY

WIDE = DecoderShape(
    hidden_size=80,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=64,
    vocab_size=90,
    max_position_embeddings=512,
    head_dim=40,  # neither whole vectors nor whole groups
)


class RoundedDecoder(PagedDecoder):
    """The slow decoder with each key and value rounded as it is stored."""

    def hidden(self, tokens, positions, sequence, page_table, adapters=None):
        rows = []
        for token, position, row in zip(tokens, positions, sequence, strict=True):
            pages = page_table[row]
            slot = self._slot(int(position), pages)
            stored = self.keys, self.values = _Rounding(self.keys, slot), _Rounding(self.values, slot)
            rows.append(self._token(int(token), int(position), pages, -1))
            self.keys, self.values = (one.array for one in stored)
        return np.stack(rows)


class _Rounding:
    """An array that rounds what is written to one slot of a layer."""

    def __init__(self, array: np.ndarray, slot: int) -> None:
        self.array, self.slot = array, slot

    def __setitem__(self, place, heads):
        padded = np.zeros((len(heads), -(-heads.shape[1] // 16) * 16), np.float32)
        padded[:, : heads.shape[1]] = heads
        self.array[place] = attention.rounded(padded)[:, : heads.shape[1]]

    def __getitem__(self, place):
        return self.array[place]


@each_isa
@pytest.mark.parametrize("shape", [QWEN, WIDE], ids=["qwen", "wide"])
def test_a_sequence_is_that_of_the_slow_decoder_with_rounded_keys_and_values(isa: str, shape: DecoderShape) -> None:
    weights = random_weights(shape)
    tokens = np.random.default_rng(1).integers(0, shape.vocab_size, 50).tolist()
    got = run_whole(make_decoder(shape, weights, isa=isa, kv="int8"), tokens)
    slow = RoundedDecoder(shape, weights, num_pages=4, page_size=16)
    rows = np.arange(50, dtype=np.int32)
    expected = slow.forward(int32(*tokens), rows, np.zeros_like(rows), np.arange(4, dtype=np.int32)[None], rows)
    # A code on an edge may turn over where sums were taken in another order.
    assert np.sqrt(((got - expected) ** 2).mean()) < 2e-3 * expected.std()


@settings(max_examples=40)
@given(
    length=st.integers(1, 200),
    rows=st.integers(1, 9),
    head_dim=st.sampled_from([16, 48, 64, 128]),
    sharpness=st.sampled_from([0.1, 1.0, 4.0]),
    outlier=st.sampled_from([1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_rounding_is_within_its_bound(
    length: int, rows: int, head_dim: int, sharpness: float, outlier: float, seed: int
) -> None:
    """Each number is off by at most half a step of its group, whatever stands in other groups; so are the outputs."""
    rng = np.random.default_rng(seed)
    k, v = rng.standard_normal((2, length, head_dim)).astype(np.float32)
    k[:, 0] *= outlier
    for x in (k, v):
        step = np.stack([np.abs(x[:, g : g + 32]).max(axis=1) for g in range(0, head_dim, 32)], axis=1) / 127
        assert (np.abs(attention.rounded(x) - x) <= 0.502 * np.repeat(step, 32, axis=1)[:, :head_dim]).all()
    q = (rng.standard_normal((rows, head_dim)) * sharpness / np.sqrt(head_dim)).astype(np.float32)
    visible = rng.integers(1, length + 1, rows).astype(np.int32)
    exact = attention.attend(q, visible, k, v)
    rounded = attention.attend(q, visible, attention.rounded(k), attention.rounded(v))
    # Scores move by at most `moved`, so weights by a factor of exp(2 moved); values by half a step.
    moved = (np.abs(q) @ np.abs(attention.rounded(k) - k).T).max()
    bound = (np.exp(2 * moved) - 1) * np.abs(v).max() + 0.51 * np.abs(v).max() / 127
    assert np.abs(rounded - exact).max() <= bound + 1e-6


@pytest.mark.parametrize("distance", [-9, 0, 1, 40])
def test_moved_tokens_stay_near(distance: int) -> None:
    results = after_a_move(distance, "int8")
    assert np.abs(results[0] - results[1]).max() < 0.05 * results[1].std()


def test_copied_pages_carry_their_scales() -> None:
    decoder = make_decoder(QWEN, random_weights(QWEN), kv="int8")
    tokens = np.random.default_rng(9).integers(0, QWEN.vocab_size, 20).astype(np.int32)
    places = np.arange(20, dtype=np.int32)
    zeros = np.zeros(19, np.int32)
    decoder.forward(tokens[:19], places[:19], zeros, int32(3, 4)[None], int32())
    decoder.copy_pages(int32(3, 4), int32(11, 7))
    last = [
        decoder.forward(tokens[19:], places[19:], int32(0), row[None], int32(0)) for row in (int32(3, 4), int32(11, 7))
    ]
    np.testing.assert_array_equal(*last)


def test_memory_is_little_more_than_half() -> None:
    half, eight = (
        plan_memory(QWEN, threads=1, num_pages=10, max_context=None, kv=kv).pool_bytes  # type: ignore[arg-type]
        for kv in ("fp16", "int8")
    )
    assert eight / half == (16 + 2) / 32  # a head of 16 has a scale of its own
    decoders = [make_decoder(QWEN, random_weights(QWEN), kv=kv).memory_bytes for kv in ("float16", "int8")]
    assert decoders[0] - decoders[1] == 40 * (half - eight) // 10


def smollm() -> tuple[Engine, Engine]:
    try:
        path = locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(str(error))
    return tuple(Engine.load(path, isa=STEADY, threads=2, max_context=512, kv=kv) for kv in ("fp16", "int8"))  # type: ignore[return-value]


def test_real_weights_say_nearly_the_same_and_company_changes_nothing() -> None:
    half, eight = smollm()
    assert eight.cache.num_pages > 1.7 * half.cache.num_pages or eight.cache.num_pages == half.cache.num_pages
    sampling = Sampling(temperature=0, max_tokens=16, ignore_eos=True)
    prompts = ["def add(a, b):\n", "The sun rises in the", "import os\nimport sys\n", "1, 2, 3, 4, 5, 6,"]
    requests = [Request(prompt_ids=eight.tokenizer.encode(prompt), sampling=sampling) for prompt in prompts]
    alone = [ids_of(eight.generate([request])[0]) for request in requests]
    eight.cache.clear()
    assert [ids_of(outputs) for outputs in eight.generate(requests)] == alone
    assert sum(one[:4] == ids_of(other)[:4] for one, other in zip(alone, half.generate(requests), strict=True)) >= 3


@pytest.mark.slow
def test_perplexity_of_real_text_hardly_moves() -> None:
    """1,000 tokens of our own scheduler under smollm2-135m in float32: 8-bit keys and values cost less than 0.2 %."""
    try:
        path = locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(str(error))
    file = open_weights(path)
    ids = Tokenizer.for_weights(path).encode(Path(scheduler.__file__).read_text("utf-8"))[:1000]
    perplexity = {}
    for kv in ("fp32", "int8"):
        plan = plan_memory(file.shape, threads=2, num_pages=64, max_context=None, kv=kv)  # type: ignore[arg-type]
        decoder = loader.make_decoder(file, plan, weights="float32", kv=kv)  # type: ignore[arg-type]
        rows = np.arange(len(ids), dtype=np.int32)
        logits = decoder.forward(int32(*ids), rows, np.zeros_like(rows), np.arange(64, dtype=np.int32)[None], rows)
        logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        scores = logits[rows[:-1], ids[1:]] - np.log(np.exp(logits[:-1]).sum(axis=1))
        perplexity[kv] = float(np.exp(-scores.mean()))
    assert abs(perplexity["int8"] / perplexity["fp32"] - 1) < 0.002
