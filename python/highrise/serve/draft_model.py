"""Floor 6, draft model: a small decoder of the same vocabulary guesses what a large one will say.

It follows the sequences that answer, over pages of its own, and says greedily how each would go on (Leviathan et al.
2023). The engine keeps a guess when it is what the large one chooses, so a poor draft model costs time and changes no
token. Knows neither the queue nor how many guesses pay.
"""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
import numpy.typing as npt

from highrise.core.native import rust
from highrise.serve.forward import Decoder
from highrise.serve.sequence import Sequence
from highrise.serve.step_cost import StepCost

__all__ = ["DraftModel"]

Ints = npt.NDArray[np.int32]


@dataclasses.dataclass(slots=True)
class _Followed:
    """What of one sequence lies in the pages here."""

    handle: int
    tokens: list[int]
    """With a slot; behind `num_known` of them they are guesses."""
    num_known: int
    num_computed: int


class DraftModel:
    """Guesses for sequences; `step_tokens` of them at most are computed at a time to catch up with their text."""

    def __init__(self, decoder: Decoder, *, num_pages: int, page_size: int, step_tokens: int = 128) -> None:
        self._decoder = decoder
        self._pool: Any = rust.PageAllocator(num_pages, page_size)
        self._page_size = page_size
        self._step_tokens = step_tokens
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._cost = StepCost()

    def seconds(self, num_sequences: int) -> float:
        """What one guess for each of so many sequences takes."""
        return self._cost.seconds(num_sequences)

    def propose(self, sequences: Items[Sequence], limits: Items[int]) -> list[list[int]]:
        """At most so many guesses for each; none while its text is not caught up with, or when the pages run out."""
        guesses: list[list[int]] = [[] for _ in sequences]
        asked = {sequence.request.id for sequence in sequences}
        budget = self._step_tokens
        work: list[tuple[int, _Followed, int]] = []  # index, and tokens to compute
        for index, sequence in enumerate(sequences):
            one = self._follow(sequence, asked) if budget > 0 else None
            if one is not None:
                count = min(len(one.tokens) - one.num_computed, budget)
                budget -= count
                work.append((index, one, count))
        while work:
            chosen = self._compute([(one, count) for _, one, count in work])
            following = []
            for (index, one, _), token in zip(work, chosen, strict=True):
                if token is None:
                    continue
                guesses[index].append(token)
                if len(guesses[index]) < limits[index] and self._append(one, [token]):
                    following.append((index, one, 1))
            work = following
        return guesses

    def forget(self, request_id: str) -> None:
        """The request is over; what was computed of it may be found again."""
        one = self._followed.pop(request_id, None)
        if one is not None:
            self._pool.release(one.handle)

    def check(self) -> None:
        """Count every page anew; raises `ValueError` when one is lost or held twice."""
        self._pool.check()

    def _follow(self, sequence: Sequence, asked: set[str]) -> _Followed | None:
        """The sequence with a slot for each of its tokens; None when there is no room."""
        name = sequence.request.id
        one = self._followed.get(name)
        if one is None:
            one = self._admit(sequence, asked)
            if one is None:
                return None
            self._followed[name] = one
        else:
            self._forget_wrong(one, sequence.tokens)
            if not self._append(one, sequence.tokens[len(one.tokens) :]):
                self.forget(name)
                return None
        one.num_known = len(one.tokens)
        one.num_computed = min(one.num_computed, one.num_known - 1)  # all of it, where a right guess had no room there
        self._followed.move_to_end(name)
        return one

    def _admit(self, sequence: Sequence, asked: set[str]) -> _Followed | None:
        """Pages for a new one; those that were not asked for longest give way, but for the ones `asked` for now."""
        tokens = np.array(sequence.tokens, dtype=np.uint32)
        while (admission := self._pool.allocate(tokens, sequence.salt, 0)) is None:
            oldest = next((name for name in self._followed if name not in asked), None)
            if oldest is None:
                return None
            self.forget(oldest)
        handle, num_computed, copy = admission
        if copy is not None:
            self._copy([copy])
        return _Followed(handle, list(sequence.tokens), len(tokens), num_computed)

    def _forget_wrong(self, one: _Followed, tokens: list[int]) -> None:
        """Give back the slots of guesses that turned out otherwise."""
        length = one.num_known
        while length < min(len(one.tokens), len(tokens)) and one.tokens[length] == tokens[length]:
            length += 1
        if length < len(one.tokens):
            self._pool.truncate(one.handle, length)
            del one.tokens[length:]
            one.num_computed = min(one.num_computed, length)

    def _append(self, one: _Followed, tokens: Items[int]) -> bool:
        """Slots for more tokens; False when the pages ran out."""
        handles = np.full(len(tokens), one.handle, dtype=np.uint64)
        done, copies = self._pool.append(handles, np.array(tokens, dtype=np.uint32))
        self._copy(copies)
        one.tokens += tokens[: int(done)]
        return int(done) == len(tokens)

    def _copy(self, copies: Any) -> None:
        if len(copies):
            source, target = np.array(copies, dtype=np.int32).reshape(-1, 2).T
            self._decoder.copy_pages(np.ascontiguousarray(source), np.ascontiguousarray(target))

    def _compute(self, work: list[tuple[_Followed, int]]) -> list[int | None]:
        """The likeliest next token of each sequence, None where tokens are left to compute before."""
        started = time.perf_counter()
        handles = np.array([one.handle for one, _ in work], dtype=np.uint64)
        width = max(-(-len(one.tokens) // self._page_size) for one, _ in work)
        table = np.full((len(work), width), -1, dtype=np.int32)
        self._pool.write_tables(handles, table)
        counts = np.array([count for _, count in work])
        places = [np.arange(one.num_computed, one.num_computed + count, dtype=np.int32) for one, count in work]
        tokens = np.array([one.tokens[place] for (one, _), row in zip(work, places, strict=True) for place in row])
        done = [one.num_computed + count == len(one.tokens) for one, count in work]
        rows = (np.cumsum(counts) - 1)[done].astype(np.int32)
        logits = self._decoder.forward(
            tokens.astype(np.int32),
            np.concatenate(places),
            np.repeat(np.arange(len(work), dtype=np.int32), counts),
            table,
            rows,
        )
        for one, count in work:
            one.num_computed += count
        known = [min(one.num_computed, one.num_known) for one, _ in work]
        self._pool.commit(handles, np.array(known, dtype=np.int64))
        if all(done) and len(tokens) == len(work):
            self._cost.see(len(tokens), time.perf_counter() - started)
        best = iter(logits.argmax(axis=1).tolist())
        return [next(best) if ready else None for ready in done]
