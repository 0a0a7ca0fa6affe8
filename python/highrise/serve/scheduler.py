"""Floor 6, scheduler: which tokens of which requests are computed in the next step. Knows neither model nor text.

Continuous batching with chunked prompts under one token budget a step (Sarathi-Serve, Agrawal et al. 2024). Typing goes
before chat; whoever waits long enough goes before everyone. While somebody types, prompts of others get only as many
tokens of a step as its measured cost allows, so that a key does not wait for a long one. When pages run out the least
urgent sequence is sent back to the queue and computed again later; its cached beginning makes that cheap.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence as Items
from typing import Protocol

from highrise.core.errors import InputError, ServeError
from highrise.serve.cache import Cache
from highrise.serve.request import Priority
from highrise.serve.sequence import Sequence
from highrise.serve.speculative import DraftLength
from highrise.serve.step_cost import PromptCost, StepCost

__all__ = ["Guesser", "QueueFullError", "Scheduler", "Work"]


class QueueFullError(ServeError):
    """Too many requests wait already; the caller should come back later (429)."""


_LEAST = 8  # tokens of a step that prompts get even while somebody types
_TYPING_LASTS = 5.0  # seconds of computing after a key in which the next one is expected


def _types(sequence: Sequence) -> bool:
    return sequence.request.priority < Priority.CHAT


@dataclasses.dataclass(slots=True)
class Work:
    """Compute tokens `start` to `start + count` of a sequence."""

    sequence: Sequence
    start: int
    count: int
    drafts: tuple[int, ...] = ()
    """Guesses for the tokens after these, computed with them (`serve/speculative.py`)."""
    by_model: bool = False
    """Whether a draft model guessed."""

    @property
    def places(self) -> list[int]:
        """Where the tokens to compute stand: all but those in the sequence's hole, and the guesses."""
        first, last = self.sequence.hole or (0, 0)
        end = self.start + self.count + len(self.drafts)
        return [*range(self.start, min(end, max(first, self.start))), *range(max(self.start, last), end)]

    @property
    def tokens(self) -> list[int]:
        """The tokens at `places`."""
        own, known = self.sequence.tokens, len(self.sequence.tokens)
        return [own[place] if place < known else self.drafts[place - known] for place in self.places]

    @property
    def finishes(self) -> bool:
        """Whether the next token can be chosen afterwards."""
        return self.start + self.count == len(self.sequence.tokens)


class Guesser(Protocol):
    """A small model that says how sequences may go on (`serve/draft_model.py`)."""

    def seconds(self, num_sequences: int) -> float:
        """What one guess for each of so many takes."""

    def propose(self, sequences: Items[Sequence], limits: Items[int]) -> list[list[int]]:
        """At most so many guesses for each."""

    def forget(self, request_id: str) -> None:
        """The request is over."""


class Scheduler:
    """Owns the queue and the running set; every sequence is in exactly one of them, or gone."""

    def __init__(
        self,
        cache: Cache,
        *,
        max_context: int,
        step_tokens: int = 128,
        max_running: int = 16,
        max_waiting: int = 256,
        patience: int = 1000,
        speculate: bool = True,
        guesser: Guesser | None = None,
        typing_seconds: float = 0.06,
    ) -> None:
        self.cache = cache
        self.max_context = min(max_context, cache.capacity)
        self.step_tokens = step_tokens
        self.max_running = min(max_running, step_tokens)
        self.max_waiting = max_waiting
        self.patience = patience
        """After this many steps of waiting a request gains one priority."""
        self.speculate = speculate
        """Whether to guess tokens ahead when a step has room for them."""
        self.guesser = guesser
        """Guesses where nothing can be looked up."""
        self.typing_seconds = typing_seconds
        """While somebody types, others' prompts are cut so that a step lasts about so long."""
        self.step_cost = StepCost()
        self.prompt_cost = PromptCost()
        self._seconds = 0.0
        self._typed_until = -1.0
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._clock = 0
        self._arrivals = 0

    # ------------------------------------------------------------------------------------------------ in and out

    def check(self, num_prompt: int) -> None:
        """Refuse a prompt that can never run, with the sentence that says why."""
        if num_prompt == 0:
            raise InputError("the prompt is empty; give at least one token")
        if num_prompt >= self.max_context:
            raise InputError(
                f"the prompt has {num_prompt} tokens and the context holds {self.max_context}, "
                "of which at least one is for the answer; shorten the prompt"
            )

    def add(self, sequence: Sequence) -> None:
        """Put a checked sequence into the queue; `QueueFullError` when the queue is full."""
        if len(self.waiting) >= self.max_waiting:
            raise QueueFullError(f"{len(self.waiting)} requests wait already; try again soon")
        self._arrivals += 1
        sequence.arrival = self._arrivals
        sequence.arrival_step = self._clock
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Finish or cancel: the pages are free when this returns."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self.cache.release(sequence, keep_floating=True)
        if self.guesser is not None:
            self.guesser.forget(sequence.request.id)

    # ------------------------------------------------------------------------------------------------ one step

    def schedule(self) -> list[Work]:
        """What to compute now: at most `step_tokens` tokens. Empty only when nothing waits or runs."""
        self._clock += 1
        if any(_types(sequence) for group in (self.running, self.waiting) for sequence in group):
            self._typed_until = self._seconds + _TYPING_LASTS
        self.running.sort(key=self._urgency)
        self._reserve_answers()
        budget = self.step_tokens
        work = []
        for sequence in self.running:
            if sequence.num_missing == 1:
                work.append(Work(sequence, sequence.num_computed, 1))
                budget -= 1
        budget = self._fill(work, budget)
        if self.speculate and budget > 0:
            self._guess(work, budget)
        return work

    def advance(self, work: list[Work]) -> None:
        """Record that `work` was computed."""
        for item in work:
            item.sequence.num_computed = item.start + item.count
        if work:
            self.cache.commit([item.sequence for item in work])
            for item in work:
                self.cache.slide(item.sequence)

    def see(self, num_tokens: int, seconds: float) -> None:
        """Learn what a step of so many tokens took."""
        self._seconds += seconds
        self.prompt_cost.see(num_tokens, seconds)
        if num_tokens <= 2 * DraftLength.MOST:  # beyond, other kernels and other costs
            self.step_cost.see(num_tokens, seconds)

    def settle(self, item: Work, num_right: int) -> None:
        """Keep the first `num_right` guesses of `item`, which became tokens, and give back the slots of the others."""
        sequence = item.sequence
        (sequence.model_length if item.by_model else sequence.draft_length).see(num_right, len(item.drafts))
        if sequence.handle is None:
            return
        sequence.num_computed += num_right
        sequence.num_reserved += num_right
        if num_right < len(item.drafts):
            self.cache.truncate(sequence, sequence.num_prompt + sequence.num_reserved)

    def _guess(self, work: list[Work], budget: int) -> None:
        """Add guesses to answers under way, as many as fit into what is left of the step and are worth their time."""
        num_tokens = sum(len(item.places) for item in work)
        without: list[Work] = []
        for item in work:
            sequence = item.sequence
            if item.count != 1 or not item.finishes or sequence.num_generated == 0:
                continue
            limit = min(budget, sequence.token_limit - len(sequence.tokens) - 1)
            drafts = sequence.lookup.propose(sequence.tokens, min(limit, DraftLength.MOST)) if limit > 0 else []
            if not drafts:
                without.append(item)
                continue
            wanted = min(len(drafts), sequence.draft_length.best(self.step_cost, num_tokens - 1))
            if wanted == 0:
                sequence.draft_length.rest()
                continue
            count = self.cache.extend(sequence, drafts[:wanted])
            item.drafts = tuple(drafts[:count])
            budget -= count
            num_tokens += count
        if self.guesser is not None and without and budget > 0:
            self._guess_by_model(without, budget, num_tokens, self.guesser)

    def _guess_by_model(self, work: list[Work], budget: int, num_tokens: int, guesser: Guesser) -> None:
        """The same by a draft model, for answers in which nothing was found to look up."""
        share = guesser.seconds(len(work)) / len(work)
        asked: list[tuple[Work, int]] = []
        for item in work:
            sequence = item.sequence
            wanted = sequence.model_length.best(self.step_cost, num_tokens - 1, guess_seconds=share)
            if wanted == 0:
                sequence.model_length.rest()
            limit = min(wanted, budget, sequence.token_limit - len(sequence.tokens) - 1)
            if limit > 0:
                asked.append((item, limit))
                budget -= limit
        guesses = guesser.propose([item.sequence for item, _ in asked], [limit for _, limit in asked])
        for (item, _), drafts in zip(asked, guesses, strict=True):
            count = self.cache.extend(item.sequence, drafts) if drafts else 0
            item.drafts, item.by_model = tuple(drafts[:count]), True

    def _urgency(self, sequence: Sequence) -> tuple[int, int]:
        """Smaller goes first. Waiting makes everyone more urgent, so nobody waits for ever."""
        aged = (self._clock - sequence.arrival_step) // self.patience
        return (sequence.request.priority - aged, sequence.arrival)

    def _fill(self, work: list[Work], budget: int) -> int:
        """Spend `budget` tokens on prompts, running and queued, most urgent first; nobody overtakes in the queue.

        What is left of it. While somebody types the prompts of others get less, but always something.
        """
        spent = self.step_tokens - budget
        for_others = budget
        if self._typed_until >= self._seconds:
            for_others = self.prompt_cost.tokens_in(self.typing_seconds, most=self.step_tokens) - spent
        prompts = [sequence for sequence in self.running if sequence.num_missing > 1]
        self.waiting.sort(key=self._urgency)
        blocked = False
        while budget > 0:
            queued = self.waiting[0] if self.waiting and not blocked else None
            if prompts and (queued is None or self._urgency(prompts[0]) < self._urgency(queued)):
                sequence = prompts.pop(0)
            elif queued is not None:
                if self._has_twin(queued) or not self._admit(queued, work, prompts):
                    blocked = True
                    continue
                sequence = queued
            else:
                break
            mine = budget if _types(sequence) else min(budget, max(for_others, _LEAST))
            count, cost = sequence.chunk(mine)
            work.append(Work(sequence, sequence.num_computed, count))
            budget -= cost
            for_others -= cost
            if not _types(sequence) and for_others <= 0:
                break
        return budget

    def _has_twin(self, sequence: Sequence) -> bool:
        """Whether the very same prompt (one of `n` choices) is being computed: then it is waited for and shared."""
        prompt = sequence.request.prompt_ids
        return any(
            other.request.prompt_ids is prompt and other.num_generated == 0 and not other.wants_prompt_logprobs
            for other in self.running
        )

    def _reserve_answers(self) -> None:
        """A slot for the newest token of every sequence that answers; the least urgent give way when pages run out."""
        growing = [sequence for sequence in self.running if sequence.num_generated > sequence.num_reserved]
        while growing:
            done = self.cache.append(growing)
            for sequence in growing[:done]:
                sequence.num_reserved = sequence.num_generated
            growing = growing[done:]
            if growing:
                victim = self.running[-1]
                self._preempt(victim)
                growing = [sequence for sequence in growing if sequence is not victim]

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.release(sequence)
        sequence.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.append(sequence)

    def _admit(self, sequence: Sequence, work: list[Work], prompts: list[Sequence]) -> bool:
        """Move the head of the queue into the running set if there is room, or less urgent ones can make room."""
        while len(self.running) >= self.max_running:
            if not self._yield_to(sequence, work, prompts):
                return False
        while not self.cache.admit(sequence, headroom=len(self.running)):
            if not self._yield_to(sequence, work, prompts):
                return False
        sequence.num_reserved = sequence.num_generated
        self.waiting.remove(sequence)
        bisect.insort(self.running, sequence, key=self._urgency)
        return True

    def _yield_to(self, sequence: Sequence, work: list[Work], prompts: list[Sequence]) -> bool:
        """Send back the least urgent running sequence if its priority is lower; its part of this step is dropped."""
        if not self.running:
            return False
        victim = self.running[-1]
        if self._urgency(victim)[0] <= self._urgency(sequence)[0]:
            return False
        self._preempt(victim)
        work[:] = [item for item in work if item.sequence is not victim]
        if victim in prompts:
            prompts.remove(victim)
        return True
