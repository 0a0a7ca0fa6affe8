"""The engine's loop over the slow decoder: the same tokens whatever else runs, and every page back at the end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.serve.request import Priority, Request, Sampling
from tests.serve.engine_parts import EOS, greedy, ids_of, text_of, tiny_engine

PROMPT = [5, 17, 33, 2, 8, 61, 40, 12, 12, 9, 77]


def run(engine, *requests):
    results = engine.generate(list(requests))
    engine.cache.check()
    assert engine.cache.num_free == engine.cache.num_pages
    return results


def alone(request: Request) -> list[int]:
    return ids_of(run(tiny_engine(step_tokens=128), request)[0])


def test_answers_are_those_of_a_plain_loop():
    """No pages, no chunks, no batch: the whole sequence anew for every token."""
    tokens = list(PROMPT)
    for _ in range(8):
        decoder = tiny_engine().decoder
        table = np.arange(64, dtype=np.int32)[None]
        positions = np.arange(len(tokens), dtype=np.int32)
        rows = np.array([len(tokens) - 1])
        logits = decoder.forward(np.array(tokens), positions, np.zeros_like(positions), table, rows)
        tokens.append(int(np.argmax(logits[0])))
    assert alone(greedy(PROMPT, 8)) == tokens[len(PROMPT) :]


@settings(max_examples=12)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 94), min_size=1, max_size=20), st.integers(1, 10), st.integers(-1, 1)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 40),
    st.integers(9, 40),
)
def test_company_chunks_and_preemption_change_nothing(jobs, step_tokens, num_pages):
    engine = tiny_engine(num_pages=num_pages, step_tokens=step_tokens, max_running=3)
    requests = [
        greedy(prompt, count, temperature=0.0 if index % 2 else 1.0, seed=index, priority=priority)
        for index, (prompt, count, priority) in enumerate(jobs)
    ]
    for request, outputs in zip(requests, run(engine, *requests), strict=True):
        assert ids_of(outputs) == alone(request)


def test_preemption_gives_the_same_tokens():
    engine = tiny_engine(num_pages=10, step_tokens=32)
    requests = [greedy([kind, *PROMPT], 20) for kind in range(4)]
    results = run(engine, *requests)
    assert engine.stats().num_preemptions > 0
    assert [ids_of(outputs) for outputs in results] == [alone(request) for request in requests]


def test_a_cached_prompt_gives_the_same_tokens_as_a_cold_one():
    engine = tiny_engine()
    cold = run(engine, greedy(PROMPT))[0]
    computed = engine.decoder.num_computed
    warm = run(engine, greedy(PROMPT))[0]
    assert ids_of(cold) == ids_of(warm)
    assert (cold[0].num_cached_tokens, warm[0].num_cached_tokens) == (0, 10)
    assert engine.decoder.num_computed - computed == len(PROMPT) - 10 + 11


def test_tenants_and_adapters_share_nothing():
    engine = tiny_engine()
    run(engine, greedy(PROMPT, salt="a"))
    assert run(engine, greedy(PROMPT, salt="b"))[0][0].num_cached_tokens == 0
    assert run(engine, greedy(PROMPT, salt="a"))[0][0].num_cached_tokens == 10


def test_a_cancelled_request_frees_its_pages_at_once():
    engine = tiny_engine(step_tokens=4)
    first = engine.add(greedy(PROMPT, 50))
    second = engine.add(greedy([1, *PROMPT], 5))
    for _ in range(5):
        engine.step()
    held = engine.cache.num_pages - engine.cache.num_free
    assert engine.cancel(first)
    assert engine.cache.num_pages - engine.cache.num_free < held
    assert not engine.cancel(first)
    outputs = engine.step()
    assert [output.finish_reason for output in outputs if output.request_id == first] == ["cancelled"]
    collected = [output for output in outputs if output.request_id == second]
    while engine.has_work:
        collected += engine.step()
    assert ids_of(collected) == alone(greedy([1, *PROMPT], 5))[-len(ids_of(collected)) :]
    assert engine.cache.num_free == engine.cache.num_pages


def test_a_thousand_requests_cancelled_inside_their_prompts_leak_nothing():
    engine = tiny_engine(step_tokens=3, num_pages=40)
    for index in range(1000):
        name = engine.add(greedy([index % 90, *PROMPT], 5))
        if index % 3:
            engine.step()
        engine.cancel(name)
    engine.step()
    engine.cache.check()
    assert engine.cache.num_free == 40
    assert not engine.has_work


def test_stop_strings_end_and_are_left_out():
    whole = text_of(run(tiny_engine(), greedy(PROMPT, 30))[0])
    stop = whole[10:12]
    outputs = run(tiny_engine(), greedy(PROMPT, 30, stop=(stop, "never there")))[0]
    assert text_of(outputs) == whole[: whole.index(stop)]
    assert (outputs[-1].finish_reason, outputs[-1].stop_reason) == ("stop", stop)


def test_text_held_back_comes_out_at_the_end():
    whole = text_of(run(tiny_engine(), greedy(PROMPT, 30))[0])
    for length in range(1, 30):
        plain = run(tiny_engine(), greedy(PROMPT, length))[0]
        held = run(tiny_engine(), greedy(PROMPT, length, stop=(whole[length - 1] + "\x00",)))[0]
        assert text_of(held) == text_of(plain)
        assert held[-1].finish_reason == "length"
        assert held[-1].num_generated == length


def test_end_of_text_and_stop_ids():
    ids = alone(greedy(PROMPT, 10))
    stopped = run(tiny_engine(), greedy(PROMPT, 10, stop_ids=(ids[3],)))[0]
    last = ids.index(ids[3])
    assert ids_of(stopped) == ids[: last + 1]
    assert (stopped[-1].stop_reason, stopped[-1].finish_reason) == (ids[3], "stop")
    assert text_of(stopped) == text_of(run(tiny_engine(), greedy(PROMPT, last))[0])
    forced = {"logit_bias": {EOS: 100.0}}
    assert ids_of(run(tiny_engine(), greedy(PROMPT, 3, ignore_eos=False, **forced))[0]) == [EOS]
    assert ids_of(run(tiny_engine(), greedy(PROMPT, 3, **forced))[0]) == [EOS] * 3
    late = ids_of(run(tiny_engine(), greedy(PROMPT, 5, ignore_eos=False, min_tokens=2, **forced))[0])
    assert len(late) == 3 and late[-1] == EOS and EOS not in late[:2]


def test_no_new_tokens_and_prompt_logprobs():
    engine = tiny_engine(step_tokens=4)
    outputs = run(engine, greedy(PROMPT, 0, echo=True, logprobs=2))[0]
    assert len(outputs) == 1 and outputs[0].finish_reason == "length" and outputs[0].ids == ()
    scores = outputs[0].prompt_logprobs
    assert scores is not None and scores[0] is None
    assert [score.id for score in scores[1:]] == PROMPT[1:]
    table, positions = np.arange(64, dtype=np.int32)[None], np.arange(len(PROMPT))
    logits = tiny_engine().decoder.forward(np.array(PROMPT), positions, np.zeros_like(positions), table, positions)
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(exact[place, PROMPT[place + 1]], abs=1e-4)
        assert [token for token, _ in score.top] == np.argsort(-exact[place], kind="stable")[:2].tolist()
    both = run(engine, greedy(PROMPT, 3, echo=True, logprobs=0))[0]
    assert both[0].prompt_logprobs is not None and both[1].prompt_logprobs is None
    assert [len(output.logprobs or ()) for output in both] == [1, 1, 1]


def test_the_context_ends_an_answer():
    engine = tiny_engine(num_pages=6)
    assert engine.max_context == 24
    outputs = run(engine, greedy(PROMPT, 500))[0]
    assert len(PROMPT) + len(ids_of(outputs)) == 24
    assert outputs[-1].finish_reason == "length"


def test_bad_requests_are_refused_with_a_sentence():
    engine = tiny_engine(num_pages=6)
    with pytest.raises(InputError, match="24 tokens and the context holds 24"):
        engine.add(greedy([1] * 24))
    with pytest.raises(InputError, match="the prompt is empty"):
        engine.add(greedy([]))
    with pytest.raises(InputError, match="token id 96 is not in the vocabulary of 96"):
        engine.add(greedy([3, 96]))
    with pytest.raises(InputError, match="token id -1"):
        engine.add(greedy([-1]))
    with pytest.raises(InputError, match='adapter "x" is not loaded; loaded: none'):
        engine.add(greedy([1], adapter="x"))
    engine.add(greedy([1], id="same"))
    with pytest.raises(InputError, match='"same" is in flight'):
        engine.add(greedy([1], id="same"))


def test_embeddings_are_means_of_length_one_and_borrow_their_pages():
    engine = tiny_engine(step_tokens=4)
    engine.add(greedy(PROMPT, 4))
    engine.step()
    held = engine.cache.num_free
    vectors = engine.embed([PROMPT, PROMPT, PROMPT[:3]])
    assert engine.cache.num_free == held
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert (vectors[0] == vectors[1]).all() and not np.allclose(vectors[0], vectors[2])
    table, positions = np.arange(64, dtype=np.int32)[None], np.arange(len(PROMPT))
    states = tiny_engine().decoder.hidden(np.array(PROMPT), positions, np.zeros_like(positions), table)
    mean = states.mean(axis=0)
    assert vectors[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_typing_overtakes_chat():
    engine = tiny_engine(step_tokens=8, num_pages=64)
    engine.add(greedy([7] * 60, 5, id="chat", priority=Priority.CHAT))
    engine.step()
    engine.add(greedy([3] * 8, 1, id="typing", priority=Priority.TYPING))
    assert [output.request_id for output in engine.step()] == ["typing"]


def test_counts_add_up():
    engine = tiny_engine()
    run(
        engine,
        greedy(PROMPT, 6),
        Request(prompt_ids=[1, 2, 3], sampling=Sampling(seed=1, max_tokens=4, ignore_eos=True)),
    )
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens) == (len(PROMPT) + 3, 10)
    assert (stats.num_running, stats.num_waiting, stats.page_usage) == (0, 0, 0.0)
