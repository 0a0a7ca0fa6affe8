"""Models all of whose layers slide: pages that no later token sees are given back, and answers do not change."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.native import csrc
from highrise.core.shape import LayerKind
from highrise.serve.cache import _SLACK
from highrise.serve.engine import Engine
from highrise.serve.loader import plan_memory
from highrise.serve.request import Request
from tests.reference.paged_decoder import TINY, PagedDecoder
from tests.serve.engine_parts import Letters, greedy, weights
from tests.serve.isas import each_isa

WINDOW = 12
PAGE = 4
MOST = -(-(WINDOW + _SLACK) // PAGE) + 2
"""Pages that a sequence holds at most when no step computes more than a few tokens of it."""


def sliding_engine(*, num_pages: int, kinds: tuple[LayerKind, ...] | None = None, **options: int) -> Engine:
    kinds = kinds or (LayerKind(WINDOW), LayerKind(WINDOW - 4))
    shape = msgspec.structs.replace(TINY, max_position_embeddings=512, layer_kinds=kinds)
    decoder = PagedDecoder(shape, weights(), num_pages=num_pages, page_size=PAGE)
    return Engine(
        decoder, shape=shape, tokenizer=Letters(), prompts=None, num_pages=num_pages, page_size=PAGE, **options
    )


def keeping(engine: Engine) -> Engine:
    """The same engine without giving anything back."""
    engine.cache._behind = 0
    return engine


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, 90, length).tolist()


def most_held(engine: Engine, requests: list[Request]) -> tuple[list[list[int]], int]:
    """The answers, and the most pages that were held after a step."""
    names = [engine.add(request) for request in requests]
    found: dict[str, list[int]] = {name: [] for name in names}
    most = 0
    while engine.has_work:
        for output in engine.step():
            found[output.request_id] += output.ids
        engine.cache.check()
        most = max(most, engine.cache.num_pages - engine.cache.num_free)
    return [found[name] for name in names], most


def test_an_answer_holds_what_it_can_see_and_is_the_same() -> None:
    request = greedy(prompt_of(120), 100)
    (expected,), all_of_them = most_held(keeping(sliding_engine(num_pages=128)), [request])
    engine = sliding_engine(num_pages=128)
    (found,), held = most_held(engine, [request])
    assert found == expected
    assert all_of_them == 55 and held <= max(MOST, 120 // PAGE)
    assert engine.cache.num_free == engine.cache.num_pages


def test_the_pool_holds_more_sequences() -> None:
    requests = [greedy(prompt_of(100, seed), 200) for seed in range(3)]
    kept, slid = keeping(sliding_engine(num_pages=3 * MOST)), sliding_engine(num_pages=3 * MOST)
    expected, _ = most_held(kept, requests)
    found, _ = most_held(slid, requests)
    assert found == expected
    assert kept.stats().num_preemptions > 0 and slid.stats().num_preemptions == 0


def test_a_model_with_one_layer_that_sees_all_keeps_all() -> None:
    engine = sliding_engine(num_pages=128, kinds=(LayerKind(WINDOW), LayerKind(0)))
    _, held = most_held(engine, [greedy(prompt_of(120), 100)])
    assert held == 55


def test_what_may_float_is_kept() -> None:
    engine = sliding_engine(num_pages=128)
    request = msgspec.structs.replace(greedy(prompt_of(180), 40), floating=(150, 170))
    _, held = most_held(engine, [request])
    assert held == 55


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(1, 120), st.integers(0, 2)), min_size=1, max_size=3),
    st.integers(60, 110),
    st.sampled_from([3, 32, 128]),
)
def test_any_requests_in_any_pool(sizes: list[tuple[int, int, int]], num_pages: int, step_tokens: int) -> None:
    """Shared beginnings, preemption and guesses beside sliding; unwritten pages of the slow decoder are no numbers."""
    requests = [
        greedy(prompt_of(min(length, num_pages * PAGE - count - 1), seed), count, repetition_penalty=0.5)
        for length, count, seed in sizes
        if num_pages * PAGE - count - 1 > 0
    ]
    options = {"num_pages": num_pages, "step_tokens": step_tokens}
    expected, _ = most_held(keeping(sliding_engine(**options)), requests)
    engine = sliding_engine(**options)
    found, _ = most_held(engine, requests)
    assert found == expected
    again, _ = most_held(engine, requests)
    assert again == expected
    assert engine.cache.num_free == engine.cache.num_pages


# ------------------------------------------------------------------------------------------- the native decoder


def native(windows: tuple[int, int], isa: str) -> csrc.Decoder:
    plan = plan_memory(TINY, threads=1, num_pages=24, max_context=None)
    fields = msgspec.structs.asdict(msgspec.structs.replace(TINY, layer_kinds=tuple(map(LayerKind, windows))))
    del fields["max_position_embeddings"]
    decoder = csrc.Decoder(**fields, num_pages=plan.num_pages, threads=1, page_size=16, isa=isa, kv="float32")
    for name, value in weights().items():
        rows, cols = (len(value), 1) if value.ndim == 1 else value.shape
        decoder.set_tensor(name, value.reshape(-1).view(np.uint8), "F32", rows, cols, "stored")
    return decoder


@each_isa
def test_the_native_decoder_asks_for_the_pages_that_it_sees(isa: str) -> None:
    tokens = np.array(prompt_of(301), np.int32)
    table = np.arange(20, dtype=np.int32)[None]

    def last(decoder: csrc.Decoder, pages: np.ndarray) -> np.ndarray:
        row = np.zeros(1, np.int32)
        return decoder.forward(tokens[300:], row + 300, row, pages, row)

    decoder = native((20, 30), isa)
    at = np.arange(300, dtype=np.int32)
    decoder.forward(tokens[:300], at, np.zeros(300, np.int32), table, np.zeros(0, np.int32))
    expected = last(decoder, table)
    slid = table.copy()
    slid[0, :16] = -1  # token 300 sees from 271 on, which is in the block of 128 tokens that begins at 256
    np.testing.assert_array_equal(last(decoder, slid), expected)
    slid[0, 16] = -1
    with pytest.raises(ValueError, match="page -1 in the page table does not exist"):
        last(decoder, slid)
    with pytest.raises(ValueError, match="page -1 in the page table does not exist"):
        last(native((20, 0), isa), np.where(table < 1, -1, table))
