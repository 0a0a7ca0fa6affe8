"""A key in an editor costs a step of few tokens, and nobody else ever sees what was only nearly computed for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from highrise.core.errors import InputError
from highrise.serve.begun import Begun, TokenIndex
from tests.serve.engine_parts import greedy, ids_of, text_of, tiny_engine

SUFFIX, MIDDLE = [20, 21, 22, 23, 24, 25, 26], [91]
TEXT = [(7 * place) % 60 for place in range(60)]


def fill_in(length: int, text=TEXT, **options):
    """What stands before the cursor is `length` tokens long."""
    prompt = [*text[:length], *SUFFIX, *MIDDLE]
    return greedy(prompt, options.pop("count", 4), floating=(length, length + len(SUFFIX)), **options)


def computed_for(engine, request) -> int:
    before = engine.decoder.num_computed
    engine.generate([request])
    return engine.decoder.num_computed - before - request.sampling.max_tokens + 1


def test_one_more_token_before_the_cursor_computes_that_token_and_the_last_one():
    engine = tiny_engine()
    assert computed_for(engine, fill_in(40)) == 48
    for length in range(41, 50):
        assert computed_for(engine, fill_in(length)) == 2
    assert engine.stats().moved_tokens == 9 * len(SUFFIX)
    engine.cache.check()


def test_taking_back_a_token_is_as_cheap():
    engine = tiny_engine()
    engine.generate([fill_in(40)])
    assert computed_for(engine, fill_in(38)) == 1


def test_a_text_that_has_drifted_far_is_computed_anew():
    engine = tiny_engine()
    engine.cache.floating.max_drift = 5
    engine.generate([fill_in(40)])
    assert computed_for(engine, fill_in(46)) == 6 + len(SUFFIX) + 1
    assert computed_for(engine, fill_in(50)) == 5
    other = [1, *TEXT[1:]]
    assert computed_for(engine, fill_in(46, other)) == 46 + len(SUFFIX) + 1


def test_what_was_moved_is_what_turning_the_keys_gives():
    """By hand: the whole prompt at once, then the same keys one place on, then the new token and the last one."""
    engine = tiny_engine()
    engine.generate([fill_in(40)])
    outputs = engine.generate([fill_in(41, count=1)])[0]
    decoder = tiny_engine().decoder
    table = np.arange(32, dtype=np.int32)[None]

    def forward(tokens, positions, row=table):
        positions = np.array(positions, dtype=np.int32)
        return decoder.forward(np.array(tokens), positions, np.zeros_like(positions), row, [len(tokens) - 1])[0]

    forward([*TEXT[:40], *SUFFIX], range(47))
    forward(TEXT[:41], range(41), table[:, 16:])
    decoder.move_tokens(table[0, :16], table[0, 16:], 40, 41, len(SUFFIX))
    assert ids_of(outputs) == [int(np.argmax(forward(MIDDLE, [48], table[:, 16:])))]


def test_what_was_moved_is_shared_with_nobody():
    engine = tiny_engine()
    engine.generate([fill_in(40)])
    engine.generate([fill_in(44)])
    plain = greedy([*TEXT[:44], *SUFFIX, *MIDDLE], 6)
    assert ids_of(engine.generate([plain])[0]) == ids_of(tiny_engine().generate([plain])[0])
    assert computed_for(engine, greedy([*TEXT[:44], *SUFFIX, 5], 2, salt="other")) == 44 + len(SUFFIX) + 1


def test_tenants_share_no_pieces():
    engine = tiny_engine()
    engine.generate([fill_in(40, salt="a")])
    assert computed_for(engine, fill_in(41, salt="b")) == 49


def test_kept_pieces_give_way_when_pages_run_out():
    engine = tiny_engine(num_pages=20)
    engine.generate([fill_in(40)])
    assert engine.cache.num_free < 20
    engine.generate([greedy([9] * 70, 4)])
    assert engine.cache.num_free == 20
    for kind in range(10):
        engine.generate([fill_in(30, [kind, *TEXT])])
    engine.cache.clear()
    assert engine.cache.num_free == 20
    engine.cache.check()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(5, 50), st.booleans(), st.integers(0, 3)), max_size=12), st.integers(1, 30))
def test_any_typing_with_any_budget_keeps_the_accounts(keys, step_tokens):
    engine = tiny_engine(step_tokens=step_tokens, num_pages=40, max_running=3)
    for length, changes, steps in keys:
        engine.add(fill_in(length, [*TEXT[:5], 3, *TEXT[6:]] if changes else TEXT, session="editor"))
        for _ in range(steps):
            engine.step()
        engine.cache.check()
    while engine.has_work:
        engine.step()
    engine.cache.clear()
    engine.cache.check()
    assert engine.cache.num_free == 40


def test_a_span_outside_of_the_prompt_is_refused():
    for span in ((0, 3), (2, 2), (-1, 1)):
        with pytest.raises(InputError, match=r"floating is \("):
            tiny_engine().add(greedy([1, 2, 3], floating=span))


def test_the_next_key_of_a_session_cancels_the_one_before():
    engine = tiny_engine(step_tokens=4)
    first = engine.add(greedy(TEXT, 20, session="editor"))
    other = engine.add(greedy(TEXT[1:], 3, session="another"))
    engine.step()
    second = engine.add(greedy(TEXT[:50], 3, session="editor"))
    ends = {}
    while engine.has_work:
        ends |= {output.request_id: output.finish_reason for output in engine.step()}
    assert ends == {first: "cancelled", other: "length", second: "length"}
    assert not engine._sessions
    assert engine.cache.num_free == engine.cache.num_pages


def test_a_thousand_keys_cancelled_inside_their_prompts_leak_nothing():
    engine = tiny_engine(step_tokens=3, num_pages=40)
    for index in range(1000):
        engine.add(fill_in(30 + index % 20, session="editor"))
        if index % 3:
            engine.step()
    while engine.has_work:
        engine.step()
    engine.cache.clear()
    engine.cache.check()
    assert engine.cache.num_free == 40


def test_after_many_keys_the_piece_is_renewed_in_the_pause():
    engine = tiny_engine()
    engine.cache.floating.max_drift = 8
    engine.generate([fill_in(40)])
    outputs = engine.generate([fill_in(45)])[0]
    assert outputs[-1].finish_reason == "length"
    assert engine.has_work
    while engine.has_work:
        assert engine.step() == []
    assert computed_for(engine, fill_in(50)) == 6
    cold = tiny_engine().generate([fill_in(45)])[0]
    engine.cache.floating.clear()
    assert ids_of(engine.generate([greedy([*TEXT[:45], *SUFFIX, *MIDDLE], 4)])[0]) == ids_of(cold)


def test_a_new_request_ends_the_renewal_before_it():
    engine = tiny_engine(step_tokens=4)
    engine.cache.floating.max_drift = 8
    engine.generate([fill_in(40)])
    engine.generate([fill_in(46)])
    assert engine.stats().num_waiting == 1
    name = engine.add(greedy([3, 4, 5], 1))
    assert [output.request_id for output in engine.step()] == [name]
    assert not engine.has_work
    engine.cache.clear()
    assert engine.cache.num_free == engine.cache.num_pages


def test_choices_of_one_prompt_compute_it_once():
    engine = tiny_engine(step_tokens=16)
    prompt = greedy(TEXT, 5)
    results = engine.generate([prompt])
    computed = engine.decoder.num_computed
    engine.cache.clear()
    choices = [
        replace(prompt, sampling=replace(prompt.sampling, temperature=float(seed > 0), seed=seed)) for seed in range(4)
    ]
    many = engine.generate(choices)
    assert engine.decoder.num_computed - computed <= len(TEXT) + 4 * 4 + 3 * 4
    assert ids_of(many[0]) == ids_of(results[0])
    assert len({tuple(ids_of(outputs)) for outputs in many}) > 1
    assert engine.cache.num_free == engine.cache.num_pages


# ---------------------------------------------------------------------------------------------------- a begun word


def test_an_answer_begins_with_the_begun_word_and_hides_it():
    plain = text_of(tiny_engine().generate([greedy(TEXT, 6)])[0])
    begun = plain[:2]
    outputs = tiny_engine().generate([greedy(TEXT, 6, begins=begun)])[0]
    assert begun + text_of(outputs) == plain
    forced = tiny_engine().generate([greedy(TEXT, 6, begins="!?")])[0]
    assert len(text_of(forced)) == 4
    assert ids_of(forced)[:2] == [ord("!") - 32, ord("?") - 32]


def test_each_token_of_a_begun_word_spells_it_or_goes_beyond():
    words = [b"re", b"ret", b"return", b"returns", b"u", b"urn", b"t", b"r", b"", b"x"]
    index = TokenIndex(lambda id: words[id], len(words))
    begun = Begun("retu", index)
    assert set(begun.allowed()) == {0, 1, 2, 3, 7}
    begun.accept(1)
    assert set(begun.allowed()) == {4, 5}
    begun.accept(5)
    assert begun.allowed() is None
    assert Begun("quite new", index).allowed() is None
    row = np.arange(10, dtype=np.float32)
    assert np.flatnonzero(np.isfinite(Begun("retu", index).mask(row))).tolist() == [0, 1, 2, 3, 7]
    assert begun.mask(row) is row
    assert np.isfinite(begun.fresh().mask(row)).sum() == 5
