"""Sampling draws from the distribution of the slow reference; seeds reproduce; logprobs are those of the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.serve.request import Sampling
from highrise.serve.sampling import Sampler, _nucleus, _top, token_logprob
from tests.reference.sampling import distribution


def sampler(sampling: Sampling, prompt=(), vocab=200, eos=(0,)) -> Sampler:
    return Sampler(sampling, list(prompt), vocab_size=vocab, eos_ids=eos)


def row(seed: int, size: int = 200) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


@given(st.integers(0, 10_000), st.integers(1, 400), st.sampled_from([50, 64, 129, 5000]), st.booleans())
def test_top_is_the_start_of_a_stable_sort(seed, k, size, ties):
    values = row(seed, size)
    if ties:
        values = np.round(values)
    k = min(k, size)
    assert _top(values, k).tolist() == np.argsort(-values, kind="stable")[:k].tolist()


@given(st.integers(0, 10_000), st.floats(0.01, 0.999), st.sampled_from([2, 100, 3000]))
def test_the_nucleus_is_the_smallest_set_with_the_share(seed, top_p, size):
    weights = np.exp(row(seed, size))
    chosen = _nucleus(weights, top_p)
    total = weights.sum(dtype=np.float64)
    assert weights[chosen].sum(dtype=np.float64) >= top_p * total * (1 - 1e-9)
    assert weights[chosen[:-1]].sum(dtype=np.float64) < top_p * total
    assert weights[chosen].min() >= np.delete(weights, chosen).max(initial=0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 5, 40]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    penalties=st.booleans(),
)
def test_draws_follow_the_distribution(seed, temperature, top_k, top_p, min_p, penalties):
    logits = row(seed, 60)
    prompt = [1, 2, 3] if penalties else []
    options = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2} if penalties else {}
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed, logit_bias={7: 2.0}, **options
    )
    counts = np.zeros(60)
    draws = 400
    for index in range(draws):
        own = sampler(
            Sampling(**{**{f: getattr(sampling, f) for f in sampling.__struct_fields__}, "seed": index}), prompt, 60
        )
        counts[own.choose(logits, 0)] += 1
    expected = distribution(
        logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, bias={7: 2.0},
        seen=prompt, repetition=1.3 if penalties else 1.0,
    )  # fmt: skip
    assert (counts[expected == 0] == 0).all()
    assert abs(counts / draws - expected).max() < 0.12


def test_penalties_count_what_was_chosen():
    own = sampler(Sampling(temperature=0, presence_penalty=1.0, frequency_penalty=0.5, repetition_penalty=2.0), [4], 6)
    logits = np.array([0, 5.0, 4.0, 3.6, 6.0, 1.0], np.float32)
    chosen: list[int] = []
    for step in range(6):
        expected = distribution(
            logits, temperature=0, seen=[4, *chosen], repetition=2.0, answer=chosen, presence=1.0, frequency=0.5
        )
        chosen.append(own.choose(logits, step))
        assert chosen[-1] == int(np.argmax(expected))
    assert len(set(chosen)) > 2


def test_the_logits_are_left_alone():
    logits = row(1)
    before = logits.copy()
    own = sampler(Sampling(logit_bias={3: 5.0}, repetition_penalty=1.2, min_tokens=3, top_p=0.9, seed=1), [1, 2])
    own.choose(logits, 0)
    assert (logits == before).all()


def test_a_seed_reproduces_and_another_differs():
    def run(seed):
        own = sampler(Sampling(seed=seed))
        return [own.choose(row(step), step) for step in range(30)]

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(-1) == run(-1)


def test_ends_are_withheld_until_min_tokens():
    logits = np.zeros(10, np.float32)
    logits[[0, 9]] = 50
    own = sampler(Sampling(temperature=0, min_tokens=2, stop_ids=(9,)), vocab=10)
    assert own.choose(logits, 0) not in (0, 9)
    assert own.choose(logits, 1) not in (0, 9)
    assert own.choose(logits, 2) == 0


def test_logprobs_are_log_softmax():
    logits = row(5, 5000)
    scored = token_logprob(logits, 17, 5)
    exact = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    assert scored.logprob == pytest.approx(exact[17], abs=1e-5)
    assert [token for token, _ in scored.top] == np.argsort(-exact, kind="stable")[:5].tolist()
    assert [value for _, value in scored.top] == pytest.approx(np.sort(exact)[::-1][:5], abs=1e-5)
    assert token_logprob(logits, 17, 0).top == ()


def test_infinite_logits_do_not_break_a_draw():
    logits = np.full(10, -np.inf, np.float32)
    logits[4] = 1
    assert sampler(Sampling(seed=1, top_p=0.5, min_p=0.1), vocab=10).choose(logits, 0) == 4
    assert sampler(Sampling(seed=1), vocab=10).choose(np.full(10, -np.inf, np.float32), 0) == 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("temperature", 2.5, "temperature is 2.5; it must be between 0.0 and 2.0"),
        ("temperature", float("nan"), "temperature is nan"),
        ("top_p", 0.0, "top_p is 0.0; it must be above 0.0 and at most 1.0"),
        ("top_k", -1, "top_k is -1"),
        ("min_p", 1.5, "min_p is 1.5"),
        ("repetition_penalty", 0.0, "repetition_penalty is 0.0"),
        ("presence_penalty", 3.0, "presence_penalty is 3.0"),
        ("max_tokens", -1, "max_tokens is -1"),
        ("logprobs", 21, "logprobs is 21"),
        ("stop", ("",), "a stop string is empty"),
        ("stop", tuple("abcdefghijklmnopq"), "17 stop strings"),
        ("logit_bias", {3: 101.0}, "logit_bias of token 3 is 101.0"),
    ],
)
def test_values_out_of_range_are_named(field, value, message):
    with pytest.raises(InputError) as caught:
        Sampling(**{field: value})
    assert message in str(caught.value)


def test_a_bias_outside_the_vocabulary_is_named():
    with pytest.raises(InputError, match="token 200; the vocabulary has 200"):
        sampler(Sampling(logit_bias={200: 1.0}))
