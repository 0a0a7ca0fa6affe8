"""The scheduler as a state machine without a model: every page accounted for, every request served, nobody starved."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from highrise.core.errors import InputError
from highrise.serve.cache import Cache
from highrise.serve.request import Priority, Request, Sampling
from highrise.serve.sampling import Sampler
from highrise.serve.scheduler import QueueFullError, Scheduler
from highrise.serve.sequence import Sequence


class NoStream:
    def push(self, id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


def sequence(prompt: list[int], priority: int = 0, limit: int = 1000) -> Sequence:
    request = Request(prompt_ids=prompt, sampling=Sampling(temperature=0), priority=priority)
    sampler = Sampler(request.sampling, prompt, vocab_size=100, eos_ids=())
    return Sequence(request, sampler=sampler, stream=NoStream(), salt=0, token_limit=limit)


def step(scheduler: Scheduler) -> list[Sequence]:
    """One step of a model that always answers 7; the sequences that got a token."""
    work = scheduler.schedule()
    assert sum(item.count for item in work) <= scheduler.step_tokens
    assert len({id(item.sequence) for item in work}) == len(work)
    for item in work:
        assert item.start == item.sequence.num_computed
        assert 0 < item.count <= item.sequence.num_missing
        assert item.sequence in scheduler.running
    scheduler.advance(work)
    answered = [item.sequence for item in work if item.finishes]
    for item in work:
        one, num_right = item.sequence, 0
        if not item.finishes:
            assert not item.drafts
            continue
        one.tokens.append(7)
        for draft in item.drafts:
            if draft != 7 or len(one.tokens) >= one.token_limit:
                break
            num_right += 1
            one.tokens.append(7)
        if len(one.tokens) >= one.token_limit:
            scheduler.remove(one)
        if item.drafts:
            scheduler.settle(item, num_right)
    return answered


def drain(scheduler: Scheduler, steps: int = 3000) -> int:
    for count in range(steps):
        if not (scheduler.running or scheduler.waiting):
            return count
        step(scheduler)
    raise AssertionError(f"{len(scheduler.waiting)} still wait and {len(scheduler.running)} run after {steps} steps")


class SchedulerHolds(RuleBasedStateMachine):
    @initialize(
        pages=st.integers(4, 12), budget=st.integers(1, 20), running=st.integers(1, 5), patience=st.integers(1, 50)
    )
    def start(self, pages, budget, running, patience):
        self.cache = Cache(pages, 4)
        self.scheduler = Scheduler(
            self.cache, max_context=40, step_tokens=budget, max_running=running, max_waiting=20, patience=patience
        )
        self.alive: list[Sequence] = []

    @rule(
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=30),
        priority=st.sampled_from([Priority.TYPING, Priority.CHAT, Priority.BATCH]),
        answer=st.integers(1, 30),
    )
    def add(self, prompt, priority, answer):
        try:
            self.scheduler.check(len(prompt))
        except InputError:
            assert len(prompt) >= self.scheduler.max_context
            return
        limit = min(len(prompt) + answer, self.scheduler.max_context)
        new = sequence(prompt, priority, limit)
        try:
            self.scheduler.add(new)
        except QueueFullError:
            assert len(self.scheduler.waiting) == 20
            return
        self.alive.append(new)

    @rule(count=st.integers(1, 5))
    def step(self, count):
        for _ in range(count):
            busy = bool(self.scheduler.running or self.scheduler.waiting)
            before = {id(one): (len(one.tokens), one.num_computed) for one in self.alive}
            step(self.scheduler)
            moved = any(before[id(one)] != (len(one.tokens), one.num_computed) for one in self.alive)
            assert moved or not busy, "a step with work to do did nothing"
            self.alive = [one for one in self.alive if len(one.tokens) < one.token_limit]

    @rule(place=st.integers(0, 100))
    def cancel(self, place):
        if self.alive:
            gone = self.alive.pop(place % len(self.alive))
            self.scheduler.remove(gone)
            assert gone.handle is None

    @invariant()
    def accounts_agree(self):
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        self.cache.check()
        held = [one for one in self.alive if one.handle is not None]
        assert {id(one) for one in held} == {id(one) for one in scheduler.running}
        assert {id(one) for one in self.alive} == {id(one) for one in [*scheduler.running, *scheduler.waiting]}
        assert len(scheduler.running) <= scheduler.max_running
        assert self.cache.statistics()["num_sequences"] == len(held)

    def teardown(self):
        if hasattr(self, "scheduler"):
            drain(self.scheduler)
            assert self.cache.num_free == self.cache.num_pages


TestScheduler = SchedulerHolds.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=30)


def make(pages: int = 64, **options) -> Scheduler:
    return Scheduler(Cache(pages, 4), max_context=200, **options)


def test_long_prompts_are_cut_and_answers_go_on():
    scheduler = make(step_tokens=16)
    talking = sequence([1] * 4, limit=50)
    scheduler.add(talking)
    step(scheduler)
    scheduler.add(sequence([2] * 100, limit=101))
    before = len(talking.tokens)
    for _ in range(5):
        assert talking in step(scheduler)
    assert len(talking.tokens) == before + 5


def test_typing_goes_before_a_chat_prompt_that_is_under_way():
    scheduler = make(step_tokens=16)
    scheduler.add(sequence([2] * 150, Priority.CHAT, 151))
    step(scheduler)
    typing = sequence([3] * 12, Priority.TYPING, 20)
    scheduler.add(typing)
    assert typing in step(scheduler)


def test_typing_takes_the_place_of_chat_and_chat_ends_all_the_same():
    scheduler = make(pages=16, max_running=2)
    chats = [sequence([kind] * 18, Priority.CHAT, 24) for kind in (1, 2)]
    for chat in chats:
        scheduler.add(chat)
    step(scheduler)
    typing = sequence([3] * 30, Priority.TYPING, 32)
    scheduler.add(typing)
    assert typing in step(scheduler)
    assert scheduler.num_preemptions == 1
    drain(scheduler)
    assert [len(chat.tokens) for chat in chats] == [24, 24]


def test_patience_beats_a_stream_of_typing():
    scheduler = make(max_running=1, patience=20)
    first = sequence([3] * 8, Priority.TYPING, 10)
    scheduler.add(first)
    step(scheduler)
    chat = sequence([1] * 8, Priority.BATCH, 10)
    scheduler.add(chat)
    for count in range(200):
        if len(scheduler.waiting) < 5:
            scheduler.add(sequence([3, count % 90] * 4, Priority.TYPING, 10))
        step(scheduler)
        if len(chat.tokens) == 10:
            return
    raise AssertionError("chat starved")


def test_a_cached_beginning_is_not_computed_again():
    scheduler = make()
    scheduler.add(sequence(list(range(40)), limit=42))
    drain(scheduler)
    again = sequence(list(range(40)), limit=42)
    scheduler.add(again)
    work = scheduler.schedule()
    assert (work[0].start, work[0].count, again.num_cached) == (39, 1, 39)


def test_prompts_that_never_fit_are_refused_at_once():
    scheduler = Scheduler(Cache(4, 4), max_context=200)
    assert scheduler.max_context == 16
    with pytest.raises(InputError, match="the prompt has 16 tokens and the context holds 16"):
        scheduler.check(16)
    with pytest.raises(InputError, match="the prompt is empty"):
        scheduler.check(0)


def test_a_full_queue_refuses():
    scheduler = make(max_waiting=2)
    scheduler.add(sequence([1]))
    scheduler.add(sequence([1]))
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        scheduler.add(sequence([1]))
