"""Guessing ahead changes when tokens come, and no token."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.serve.speculative import DraftLength, Lookup
from highrise.serve.step_cost import PromptCost, StepCost
from tests.serve.engine_parts import greedy, ids_of, text_of, tiny_engine

REPEATS = [5, 17, 33, 2, 8, 61, 40] * 4


class Free(StepCost):
    """A machine on which every token of a step but the first costs nothing: guesses always pay."""

    def see(self, num_tokens: int, seconds: float) -> None:
        pass

    def seconds(self, num_tokens: int) -> float:
        return 1.0


def run(speculate: bool, requests, **options):
    engine = tiny_engine(speculate=speculate, **options)
    engine.scheduler.step_cost = Free()
    results = engine.generate(requests)
    engine.cache.check()
    assert engine.cache.num_free == engine.cache.num_pages
    return engine, results


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 3), min_size=1, max_size=25),
            st.integers(1, 25),
            st.sampled_from([0.0, 0.3, 1.0]),
            st.sampled_from([1.0, 1.3]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(2, 40),
    st.integers(14, 64),
)
def test_tokens_are_those_of_plain_decoding(jobs, step_tokens, num_pages):
    requests = [
        greedy(prompt, count, temperature=temperature, seed=index, repetition_penalty=penalty, logprobs=2)
        for index, (prompt, count, temperature, penalty) in enumerate(jobs)
    ]
    options = {"step_tokens": step_tokens, "num_pages": num_pages, "max_running": 3}
    _, plain = run(False, requests, **options)
    _, ahead = run(True, requests, **options)
    for one, other in zip(plain, ahead, strict=True):
        assert ids_of(one) == ids_of(other)
        assert text_of(one) == text_of(other)
        assert one[-1].finish_reason == other[-1].finish_reason
        scores = [scored for output in other for scored in output.logprobs]
        assert [scored.id for scored in scores] == ids_of(other)


def test_an_answer_that_repeats_takes_fewer_steps():
    request = greedy(REPEATS, 60, logit_bias={token: 30.0 for token in (5, 17, 33)})
    slow, one = run(False, [request])
    fast, other = run(True, [request])
    assert ids_of(one[0]) == ids_of(other[0])
    assert fast.stats().accepted_tokens > 20
    assert fast.stats().num_steps < slow.stats().num_steps - 15


def test_a_stop_inside_the_guesses_ends_there():
    request = greedy(REPEATS, 60, logit_bias={token: 30.0 for token in (5, 17, 33)})
    text = text_of(run(False, [request])[1][0])
    for place in range(10, 40):
        stopped = greedy(REPEATS, 60, logit_bias=request.sampling.logit_bias, stop=(text[place : place + 3],))
        assert text_of(run(True, [stopped])[1][0]) == text_of(run(False, [stopped])[1][0])


def test_lookup_finds_what_followed_last():
    lookup = Lookup()
    tokens = [1, 2, 3, 4, 9, 1, 2, 3, 5, 6, 1, 2, 3]
    assert lookup.propose(tokens, 4) == [5, 6, 1, 2]
    assert lookup.propose([*tokens, 7], 4) == []
    assert lookup.propose([*tokens, 7, 1, 2, 3], 2) == [7, 1]
    assert Lookup().propose([8, 1, 2, 1, 2, 1, 2, 1], 5) == [2, 1, 2, 1, 2]
    assert Lookup().propose([1, 2], 3) == []


def test_the_cost_of_a_step_is_learnt():
    cost = StepCost()
    for _ in range(200):
        for count in (1, 2, 5, 9):
            cost.see(count, 0.02 + 0.003 * count)
    assert abs(cost.seconds(4) - 0.032) < 1e-4


def test_guesses_stop_where_they_do_not_pay():
    cheap, dear = StepCost(), StepCost()
    for _ in range(200):
        for count in (1, 5):
            cheap.see(count, 0.01 + 0.0001 * count)
            dear.see(count, 0.01 * count)
    length = DraftLength()
    assert length.best(cheap, 0) > 3
    assert length.best(dear, 0) == 0
    for _ in range(20):
        length.see(0, 4)
    assert length.best(cheap, 0) <= 1
    for _ in range(200):
        length.rest()
    assert length.best(cheap, 0) > 1


def test_the_slower_steps_count_for_prompts():
    cost = PromptCost()
    assert cost.tokens_in(0.05, most=128) == 128
    cost.see(100, 0.1)
    assert cost.tokens_in(0.05, most=128) == 50
    cost.see(100, 0.3)
    assert cost.tokens_in(0.05, most=128) == 25
    for _ in range(60):
        cost.see(100, 0.1)
    assert 48 <= cost.tokens_in(0.05, most=128) <= 50
    cost.see(1, 9.0)
    assert cost.tokens_in(0.05, most=128) >= 48
