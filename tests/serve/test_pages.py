"""The native page allocator does what the slow one does, operation after operation, page number for page number."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from highrise.core.native import rust
from tests.reference.pages import ReferencePages

NUM_PAGES, PAGE_SIZE = 12, 3
TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=20)


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, dtype=np.uint32)


class PagesAgree(RuleBasedStateMachine):
    handles = Bundle("handles")

    def __init__(self) -> None:
        super().__init__()
        self.native = rust.PageAllocator(NUM_PAGES, PAGE_SIZE)
        self.slow = ReferencePages(NUM_PAGES, PAGE_SIZE)

    def pages_of(self, handle: int) -> list[int]:
        table = np.full((1, 40), 7, dtype=np.int32)
        count = self.native.write_tables(np.array([handle], dtype=np.uint64), table)
        assert (table[0, count:] == -1).all()
        return table[0, :count].tolist()

    @rule(target=handles, tokens=TOKENS, salt=st.integers(0, 1), headroom=st.integers(0, 2))
    def allocate(self, tokens, salt, headroom):
        looked_up = self.native.lookup(ids(tokens), salt)
        assert looked_up == self.slow.count_cached(tokens, salt)
        admission = self.native.allocate(ids(tokens), salt, headroom)
        handle = -1 if admission is None else admission[0]
        expected = self.slow.allocate(handle, tokens, salt, headroom)
        assert (None if admission is None else (admission[1], admission[2])) == expected
        return handle

    def held(self, handle: int) -> bool:
        return handle in self.slow.sequences

    def present(self, handle: int) -> bool:
        return self.held(handle) and not self.slow.sequences[handle]["swapped"]

    def grows(self, handle: int) -> bool:
        return self.present(handle) and not self.slow.sequences[handle]["pinned"]

    @rule(chosen=st.lists(handles, max_size=4, unique=True), token=st.integers(0, 2))
    def append(self, chosen, token):
        chosen = [handle for handle in chosen if self.grows(handle)]
        done, copies = self.native.append(np.array(chosen, dtype=np.uint64), ids([token] * len(chosen)))
        expected_copies = []
        for index, handle in enumerate(chosen):
            good, copy = self.slow.append(handle, token)
            if copy is not None:
                expected_copies.append(list(copy))
            if not good:
                assert done == index
                break
        else:
            assert done == len(chosen)
        assert copies.tolist() == expected_copies

    @rule(handle=handles, share=st.floats(0, 1))
    def commit(self, handle, share):
        if self.present(handle):
            count = round(share * len(self.slow.sequences[handle]["tokens"]))
            self.native.commit(np.array([handle], dtype=np.uint64), np.array([count], dtype=np.int64))
            self.slow.commit(handle, count)

    @rule(target=handles, handle=handles)
    def fork(self, handle):
        if not self.grows(handle):
            return -1
        child = self.native.fork(handle)
        self.slow.fork(handle, child)
        return child

    @rule(target=handles, handle=handles)
    def pin(self, handle):
        if not self.present(handle):
            return -1
        child = self.native.pin(handle)
        self.slow.fork(handle, child, pinned=True)
        return child

    @rule(handle=handles, share=st.floats(0, 1))
    def truncate(self, handle, share):
        if self.grows(handle):
            sequence = self.slow.sequences[handle]
            lowest = max(1, sequence["committed"] * PAGE_SIZE)
            length = lowest + round(share * (len(sequence["tokens"]) - lowest))
            if length <= len(sequence["tokens"]):
                self.native.truncate(handle, length)
                self.slow.truncate(handle, length)

    @rule(handle=handles, window=st.integers(1, 12))
    def slide(self, handle, window):
        if self.grows(handle):
            assert self.native.slide(handle, window) == self.slow.slide(handle, window)

    @rule(handle=handles)
    def swap_out(self, handle):
        if self.grows(handle) and not self.slow.sequences[handle]["slid"]:
            assert self.native.swap_out(handle).tolist() == self.slow.swap_out(handle)

    @rule(handle=handles, headroom=st.integers(0, 2))
    def swap_in(self, handle, headroom):
        if not self.held(handle):
            return
        if self.present(handle):
            with pytest.raises(ValueError, match="is not swapped out"):
                self.native.swap_in(handle, headroom)
            return
        found = self.native.swap_in(handle, headroom)
        expected = self.slow.swap_in(handle, headroom)
        assert (None if found is None else [tuple(row) for row in found.tolist()]) == expected

    @rule(handle=handles)
    def a_swapped_one_does_nothing(self, handle):
        if self.held(handle) and not self.present(handle):
            for call in (self.native.fork, self.native.pin, self.native.swap_out):
                with pytest.raises(ValueError, match="is swapped out"):
                    call(handle)

    @rule(handle=consumes(handles))
    def release(self, handle):
        if self.held(handle):
            self.native.release(handle)
            self.slow.release(handle)
        else:
            with pytest.raises((ValueError, OverflowError)):
                self.native.release(handle)

    @precondition(lambda self: True)
    @invariant()
    def everything_agrees(self):
        self.native.check()
        counts = self.native.statistics()
        assert counts["num_free"] + counts["num_held"] == NUM_PAGES
        assert counts["num_free"] == len(self.slow.free) == self.native.num_free
        assert counts["num_registered"] == len(self.slow.content)
        assert counts["num_sequences"] == len(self.slow.sequences)
        for handle, sequence in self.slow.sequences.items():
            if not sequence["swapped"]:
                assert self.pages_of(handle) == sequence["pages"]
            assert self.native.length(handle) == len(sequence["tokens"])


TestPages = PagesAgree.TestCase
TestPages.settings = settings(max_examples=60, stateful_step_count=40)


@pytest.mark.slow
@pytest.mark.timeout(3600)
class TestPagesLong(PagesAgree.TestCase):
    """A million operations."""

    settings = settings(max_examples=10_000, stateful_step_count=100)


def test_the_recorded_trace_comes_out_again():
    """A fixed walk; its page tables and counts were recorded once (tests/golden/pages.json)."""
    pool, generator, held, trace = rust.PageAllocator(24, 4), np.random.default_rng(11), [], []
    for step in range(60):
        if len(held) > 2 and step % 3 == 0:
            pool.release(held.pop(0))
        admission = pool.allocate(generator.integers(0, 2, 6 + step % 15).astype(np.uint32), step % 2)
        if admission is None:
            trace.append(None)
            continue
        held.append(admission[0])
        length = pool.length(held[-1])
        pool.commit(np.array(held[-1:], dtype=np.uint64), np.array([length], dtype=np.int64))
        table = np.full((1, 8), 0, dtype=np.int32)
        pool.write_tables(np.array(held[-1:], dtype=np.uint64), table)
        trace.append([admission[1], *table[0].tolist()])
    found = {"trace": trace, "statistics": pool.statistics()}
    assert found == json.loads((Path(__file__).parents[1] / "golden" / "pages.json").read_text())


def test_wrong_use_is_a_sentence():
    with pytest.raises(ValueError, match="page size is 0"):
        rust.PageAllocator(4, 0)
    with pytest.raises(ValueError, match="can be named"):
        rust.PageAllocator(1 << 31, 16)
    pool = rust.PageAllocator(4, 2)
    slid, _, _ = pool.allocate(ids([1, 2, 3, 4, 5]))
    pool.commit(np.array([slid], dtype=np.uint64), np.array([5], dtype=np.int64))
    pool.slide(slid, 1)
    with pytest.raises(ValueError, match="cannot be swapped out"):
        pool.swap_out(slid)
    pool.release(slid)
    pool.clear_cache()
    with pytest.raises(ValueError, match="at least one token"):
        pool.allocate(ids([]))
    with pytest.raises(ValueError, match="not held"):
        pool.release(77)
    handle, _, _ = pool.allocate(ids([1, 2, 3]))
    with pytest.raises(ValueError, match="5 tokens named in a sequence of 3"):
        pool.commit(np.array([handle], dtype=np.uint64), np.array([5], dtype=np.int64))
    with pytest.raises(ValueError, match="room for 1 pages"):
        pool.write_tables(np.array([handle], dtype=np.uint64), np.zeros((1, 1), dtype=np.int32))
    with pytest.raises(ValueError, match="2 handles and 1 rows"):
        pool.write_tables(np.array([handle] * 2, dtype=np.uint64), np.zeros((1, 4), dtype=np.int32))


def test_a_pool_survives_many_threads():
    pool = rust.PageAllocator(256, 4)

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(300):
            admission = pool.allocate(generator.integers(0, 3, 20).astype(np.uint32))
            pool.statistics()
            if admission is not None:
                pool.commit(np.array([admission[0]], dtype=np.uint64), np.array([20], dtype=np.int64))
                pool.release(admission[0])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.check()
    assert pool.num_free == 256
