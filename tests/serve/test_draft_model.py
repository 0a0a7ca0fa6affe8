"""A draft model: guesses of a good one spare steps, those of a bad one cost some, and no token ever changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.draft_model import DraftModel
from highrise.serve.engine import Engine
from highrise.serve.loader import open_draft, plan_memory
from highrise.serve.request import Request
from highrise.serve.step_cost import StepCost
from tests.reference.paged_decoder import TINY, PagedDecoder
from tests.serve.engine_parts import Letters, greedy, ids_of, weights

PROMPT = [5, 17, 33, 2, 8, 61, 40]


class Free(StepCost):
    """Further tokens of a step cost nothing, and guesses neither: as many as can be are tried."""

    def seconds(self, num_tokens: int) -> float:
        return 1.0


def engine_with(seed: int | None, *, num_pages: int = 64, draft_pages: int = 64, **options: int) -> Engine:
    """An engine whose draft model has the weights of `seed` (0 are its own), None for no draft model."""
    draft = None
    if seed is not None:
        decoder = PagedDecoder(TINY, weights(seed), num_pages=draft_pages, page_size=4)
        draft = DraftModel(decoder, num_pages=draft_pages, page_size=4)
        draft._cost = type("None", (), {"seconds": lambda *_: 0.0, "see": lambda *_: None})()  # type: ignore[assignment]
    decoder = PagedDecoder(TINY, weights(), num_pages=num_pages, page_size=4)
    options = {"page_size": 4, "step_tokens": 64, **options}
    engine = Engine(decoder, shape=TINY, tokenizer=Letters(), prompts=None, num_pages=num_pages, draft=draft, **options)
    engine.scheduler.step_cost = Free()
    return engine


def answers(engine: Engine, requests: list[Request]) -> list[list[int]]:
    found = [ids_of(outputs) for outputs in engine.generate(requests)]
    assert engine.cache.num_free == engine.cache.num_pages
    engine.cache.check()
    guesser = engine.scheduler.guesser
    if isinstance(guesser, DraftModel):
        guesser.check()
        assert not guesser._followed, "what was followed is given back at the end"
    return found


def test_its_own_weights_guess_right_and_spare_most_steps() -> None:
    requests = [greedy([seed, *PROMPT], 60) for seed in range(3)]
    plain, guessed = engine_with(None), engine_with(0)
    assert answers(guessed, requests) == answers(plain, requests)
    stats = guessed.stats()
    assert stats.accepted_tokens > 0.8 * stats.drafted_tokens
    assert stats.num_steps < 0.5 * plain.stats().num_steps


def test_other_weights_guess_wrong_and_nothing_changes() -> None:
    requests = [greedy([seed, *PROMPT], 60, temperature=0.7, seed=seed) for seed in range(3)]
    guessed = engine_with(1)
    assert answers(guessed, requests) == answers(engine_with(None), requests)
    stats = guessed.stats()
    assert 0 < stats.accepted_tokens < 0.5 * stats.drafted_tokens


def test_a_draft_model_that_takes_long_is_left_alone() -> None:
    slow = engine_with(0)
    assert slow.scheduler.guesser is not None
    slow.scheduler.guesser._cost.seconds = lambda *_: 10.0  # type: ignore[attr-defined]
    answers(slow, [greedy(list(range(20, 60)), 20)])
    assert not slow.scheduler.guesser._followed  # type: ignore[attr-defined]


def test_cancelling_and_preemption_leave_no_page() -> None:
    engine = engine_with(0, num_pages=40, draft_pages=40)
    for seed in range(4):
        engine.add(greedy([seed, *PROMPT] * 3, 70, priority=seed % 2))
    for number in range(30):
        engine.step()
        if number == 10:
            assert engine.cancel("request-2")
    while engine.has_work:
        engine.step()
    assert engine.stats().num_preemptions > 0
    answers(engine, [])


@settings(max_examples=10)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 50), st.integers(0, 3)), min_size=1, max_size=4),
    st.integers(0, 2),
    st.integers(30, 70),
    st.integers(8, 70),
    st.sampled_from([5, 64]),
    st.sampled_from([0.0, 1.0]),
)
def test_any_requests_any_draft_model(
    sizes: list[tuple[int, int, int]], seed: int, num_pages: int, draft_pages: int, step_tokens: int, temperature: float
) -> None:
    """Shared beginnings, preemption, pages that run out on either side: answers are those without."""
    requests = [
        greedy(np.random.default_rng(kind).integers(0, 90, length).tolist(), count, temperature=temperature, seed=kind)
        for length, count, kind in sizes
    ]
    options = {"num_pages": num_pages, "step_tokens": step_tokens}
    guessed = engine_with(seed, draft_pages=draft_pages, **options)
    assert answers(guessed, requests) == answers(engine_with(None, **options), requests)


def test_another_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["one two three", "four five six"] * 20
    ours, theirs = (Tokenizer.train(texts, vocabulary=size) for size in (270, 265))
    monkeypatch.setattr("highrise.serve.loader.open_weights", lambda _: type("File", (), {"shape": TINY})())
    monkeypatch.setattr(
        "highrise.serve.loader.Tokenizer", type("T", (), {"for_weights": staticmethod(lambda _: theirs)})
    )
    plan = plan_memory(TINY, threads=1, num_pages=8, max_context=None)
    with pytest.raises(InputError, match="its vocabulary is another one"):
        open_draft(tmp_path, ours, plan, weights="stored", isa="auto", kv="fp16")
