"""Typing and chat over one scheduler in simulated time: a key never waits long, and chat goes on.

The trace (tests/golden/typing_trace.json) holds half a minute: arrivals, prompts and answers of chats that keep the
machine busy, and the pauses between the keys of three people. No model runs; a step takes 5 ms and 1 ms a token, as on
a machine on which a prompt of 1,000 tokens takes more than a second.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from highrise.serve.cache import Cache
from highrise.serve.load import percentile
from highrise.serve.request import Priority, Request, Sampling
from highrise.serve.sampling import Sampler
from highrise.serve.scheduler import Scheduler
from highrise.serve.sequence import Sequence
from tests.serve.test_scheduler import NoStream

TRACE = json.loads((Path(__file__).parents[1] / "golden" / "typing_trace.json").read_text())
FIXED, A_TOKEN = 0.005, 0.001


def make(prompt: list[int], answer: int, priority: int, floating: tuple[int, int] | None = None) -> Sequence:
    request = Request(prompt_ids=prompt, sampling=Sampling(temperature=0), priority=priority, floating=floating)
    sampler = Sampler(request.sampling, prompt, vocab_size=1 << 20, eos_ids=())
    return Sequence(request, sampler=sampler, stream=NoStream(), salt=0, token_limit=len(prompt) + answer)


class Simulation:
    """Runs the trace; `first` holds seconds to the first token of each kind, `done` the chats that ended."""

    def __init__(self, *, typing: bool, **options) -> None:
        self.scheduler = Scheduler(
            Cache(2000, 16), max_context=8192, step_tokens=128, max_running=16, max_waiting=10_000, **options
        )
        self.now = 0.0
        self.first: dict[str, list[float]] = {"chat": [], "typing": []}
        self.done = 0
        self.tokens = 0
        self.arrived: dict[int, tuple[str, float]] = {}
        self.events = [(at, "chat", index) for index, (at, _, _) in enumerate(TRACE["chats"])]
        if typing:
            self.events += [(at, "key", index) for index, (at, _) in enumerate(TRACE["keys"])]
        self.events.sort()
        self.people: dict[int, tuple[int, Sequence | None]] = {}

    def arrive(self, at: float, kind: str, index: int) -> None:
        if kind == "chat":
            _, prompt, answer = TRACE["chats"][index]
            sequence = make([1_000 + 7 * index + place % 97 for place in range(prompt)], answer, Priority.CHAT)
        else:
            person = TRACE["keys"][index][1]
            typed, older = self.people.get(person, (0, None))
            if older is not None and older in [*self.scheduler.running, *self.scheduler.waiting]:
                self.scheduler.remove(older)
            # A letter ends a token in one case of three; every fortieth key the cursor goes elsewhere in the file.
            place = 50_000 * person + 1_000 * (typed // 40)
            before = [place + number for number in range(600 + typed % 40 // 3)]
            prompt = [*before, 1, *(place + 700 + number for number in range(150)), 2]
            sequence = make(prompt, 12, Priority.TYPING, (len(before) + 1, len(prompt) - 1))
            self.people[person] = (typed + 1, sequence)
        self.scheduler.add(sequence)
        self.arrived[id(sequence)] = ("chat" if kind == "chat" else "typing", at)

    def run(self, until: float = 1e9) -> Simulation:
        scheduler = self.scheduler
        while self.now < until:
            while self.events and self.events[0][0] <= self.now:
                self.arrive(*self.events.pop(0))
            work = scheduler.schedule()
            if not work:
                if not self.events:
                    return self
                self.now = self.events[0][0]
                continue
            scheduler.cache.take_transfers()
            size = sum(len(item.places) for item in work)
            self.now += FIXED + A_TOKEN * size
            scheduler.advance(work)
            scheduler.see(size, FIXED + A_TOKEN * size)
            for item in work:
                sequence = item.sequence
                if item.drafts:
                    scheduler.settle(item, 0)
                if not item.finishes:
                    continue
                kind, at = self.arrived[id(sequence)]
                if sequence.num_generated == 0:
                    self.first[kind].append(self.now - at)
                sequence.tokens.append(900_000 + self.tokens)
                self.tokens += 1
                if len(sequence.tokens) >= sequence.token_limit:
                    scheduler.remove(sequence)
                    self.done += kind == "chat"
        return self


@pytest.fixture(scope="module")
def both():
    return Simulation(typing=True).run()


def test_a_key_never_waits_long_while_chat_fills_the_machine(both):
    assert len(both.first["typing"]) > 0.8 * len(TRACE["keys"])
    assert percentile(both.first["typing"], 50) < 0.12
    assert percentile(both.first["typing"], 99) < 0.5
    # Where the cursor went elsewhere, the 750 tokens around it are computed anew.
    assert max(both.first["typing"]) < 1.2


def test_chat_goes_on_and_ends(both):
    assert both.done == len(TRACE["chats"])
    alone = Simulation(typing=False).run()
    assert alone.done == len(TRACE["chats"])
    assert percentile(both.first["chat"], 99) < 3 * percentile(alone.first["chat"], 99) + 1


def test_without_the_bound_a_key_waits_longer(both):
    unbound = Simulation(typing=True, typing_seconds=1e9).run()
    assert percentile(unbound.first["typing"], 50) > 1.5 * percentile(both.first["typing"], 50)


def test_every_page_comes_back(both):
    cache = both.scheduler.cache
    cache.check()
    cache.clear()
    assert cache.num_free == cache.num_pages
