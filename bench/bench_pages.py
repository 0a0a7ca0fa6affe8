"""Page allocator beside nano-vllm's block manager: pages of 16 tokens, whole requests from Python, the same prompts.

Two jobs. "allocate": new prompts, every page hashed for the prefix cache. "take back": prompts that were released and
are found again. nano-vllm itself is not on the package index: `NanoBlocks` restates the behaviour of its `BlockManager`
(with xxhash where it is installed); `nano-vllm-fork` is used as it is when installed (`pip install --no-deps`). vLLM's
`BlockPool` cannot be imported without torch and the whole of vLLM, so it is not compared. Prompts are uint32 arrays for
ours and lists for the peers, what each takes; making the array from a list would add about 0.6 microseconds a page.
"""

from __future__ import annotations

import collections
import gc
import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest

from highrise.core.native import rust

PAGE_SIZE, PROMPT_PAGES, NUM_PROMPTS = 16, 64, 8
SIZES = [1_000, 100_000, 1_000_000]
PAGES_A_ROUND = PROMPT_PAGES * NUM_PROMPTS


def prompts(seed: int) -> list[list[int]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 150_000, PAGE_SIZE * PROMPT_PAGES + 1).tolist() for _ in range(NUM_PROMPTS)]


class Ours:
    def __init__(self, num_pages: int) -> None:
        self.pool = rust.PageAllocator(num_pages, PAGE_SIZE)

    def prepare(self, lists):
        return [np.array(one, dtype=np.uint32) for one in lists]

    def allocate(self, prepared):
        held = [self.pool.allocate(one) for one in prepared]
        handles = np.array([handle for handle, *_ in held], dtype=np.uint64)
        self.pool.commit(handles, np.full(len(held), PAGE_SIZE * PROMPT_PAGES + 1, dtype=np.int64))
        return held

    def release(self, held):
        for handle, *_ in held:
            self.pool.release(handle)

    def cached(self, held):
        return [cached for _, cached, *_ in held]


class NanoBlocks:
    """What nano-vllm's `BlockManager` does: a deque of free blocks, a dictionary of hashes, lists of tokens."""

    class Block:
        def __init__(self, number: int) -> None:
            self.number, self.holders, self.hash, self.tokens = number, 0, -1, []

    def __init__(self, num_pages: int) -> None:
        self.blocks = [self.Block(number) for number in range(num_pages)]
        self.known: dict[int, int] = {}
        self.free = collections.deque(range(num_pages))
        self.used: set[int] = set()

    def prepare(self, lists):
        return lists

    @staticmethod
    def hash_of(tokens, before):
        try:
            import xxhash
        except ImportError:
            return hash((before, *tokens))
        digest = xxhash.xxh64()
        if before != -1:
            digest.update(before.to_bytes(8, "little"))
        digest.update(np.array(tokens).tobytes())
        return digest.intdigest()

    def take(self, number):
        block = self.blocks[number]
        block.holders, block.hash, block.tokens = 1, -1, []
        self.free.remove(number)
        self.used.add(number)
        return block

    def allocate(self, prepared):
        return [self.allocate_one(tokens) for tokens in prepared]

    def allocate_one(self, tokens):
        table, before, cached, missed = [], -1, 0, False
        for start in range(0, len(tokens), PAGE_SIZE):
            page = tokens[start : start + PAGE_SIZE]
            before = self.hash_of(page, before) if len(page) == PAGE_SIZE else -1
            number = self.known.get(before, -1)
            missed = missed or number == -1 or self.blocks[number].tokens != page
            if missed:
                block = self.take(self.free[0])
            else:
                cached += PAGE_SIZE
                if number in self.used:
                    block = self.blocks[number]
                    block.holders += 1
                else:
                    block = self.take(number)
            if before != -1:
                block.hash, block.tokens = before, page
                self.known[before] = block.number
            table.append(block.number)
        return table, cached

    def release(self, held):
        for table, _ in held:
            for number in reversed(table):
                block = self.blocks[number]
                block.holders -= 1
                if block.holders == 0:
                    self.used.remove(number)
                    self.free.append(number)

    def cached(self, held):
        return [cached for _, cached, *_ in held]


class NanoFork:
    """`nano-vllm-fork` as installed; its package imports torch, so the two files are loaded without it.

    It forgets the content of a freed block, so it has no part in "take back".
    """

    def __init__(self, num_pages: int) -> None:
        pytest.importorskip("xxhash")
        if "nanovllm" not in sys.modules:
            found = importlib.util.find_spec("nanovllm")
            if found is None:
                pytest.skip("nano-vllm-fork is not installed")
            for name in ("nanovllm", "nanovllm.engine"):
                package = types.ModuleType(name)
                package.__path__ = [f"{found.submodule_search_locations[0]}{'/engine' if '.' in name else ''}"]
                sys.modules[name] = package
        parameters = types.ModuleType("nanovllm.sampling_params")
        parameters.SamplingParams = lambda: collections.defaultdict(lambda: None)
        sys.modules["nanovllm.sampling_params"] = parameters
        self.manager = importlib.import_module("nanovllm.engine.block_manager").BlockManager(num_pages, PAGE_SIZE)

    class Sequence:
        def __init__(self, tokens) -> None:
            self.tokens, self.block_table, self.num_cached_tokens = tokens, [], 0
            self.num_blocks = -(-len(tokens) // PAGE_SIZE)

        def block(self, index):
            return self.tokens[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]

    def prepare(self, lists):
        return lists

    def allocate(self, prepared):
        sequences = [self.Sequence(tokens) for tokens in prepared]
        for sequence in sequences:
            self.manager.allocate(sequence)
        return sequences

    def release(self, held):
        for sequence in held:
            self.manager.deallocate(sequence)

    def cached(self, held):
        return [sequence.num_cached_tokens for sequence in held]


WHO = {"highrise": Ours, "nano-vllm (restated)": NanoBlocks, "nano-vllm-fork": NanoFork}


def fill(pool, num_pages: int) -> None:
    """Use and release every page once, so that new prompts overwrite cached ones in memory that was touched."""
    generator = np.random.default_rng(99)
    step = min(num_pages, 50_000)
    for _ in range(0, num_pages, step):
        tokens = generator.integers(0, 150_000, step * PAGE_SIZE).tolist()
        pool.release(pool.allocate(pool.prepare([tokens])))


@pytest.mark.parametrize("num_pages", SIZES)
@pytest.mark.parametrize("who", WHO)
def test_allocate(benchmark, who, num_pages):
    pool = WHO[who](num_pages)
    fill(pool, num_pages)
    gc.collect()
    held, seeds = [], iter(range(10_000))

    def setup():
        if held:
            pool.release(held.pop())
        return (pool.prepare(prompts(next(seeds))),), {}

    def allocate(prepared):
        held.append(pool.allocate(prepared))

    benchmark.extra_info = {
        "path": f"pages-allocate ({num_pages:,} pages)", "who": who, "amount": PAGES_A_ROUND, "unit": "pages",
    }  # fmt: skip
    benchmark.pedantic(allocate, setup=setup, rounds=25, warmup_rounds=2)
    assert pool.cached(held[0]) == [0] * NUM_PROMPTS


@pytest.mark.parametrize("num_pages", SIZES)
@pytest.mark.parametrize("who", ["highrise", "nano-vllm (restated)"])
def test_take_back(benchmark, who, num_pages):
    if who != "highrise" and num_pages > 100_000:
        pytest.skip("nano-vllm searches its queue of free blocks for each page: minutes")
    pool = WHO[who](num_pages)
    few = pool.prepare(prompts(1)[:4])
    held = [pool.allocate(few)]

    def setup():
        pool.release(held.pop())
        return (), {}

    benchmark.extra_info = {
        "path": f"pages-take-back ({num_pages:,} pages)", "who": who, "amount": 4 * PROMPT_PAGES, "unit": "pages",
    }  # fmt: skip
    benchmark.pedantic(lambda: held.append(pool.allocate(few)), setup=setup, rounds=25 if who == "highrise" else 3)
    assert pool.cached(held[0]) == [PAGE_SIZE * PROMPT_PAGES] * 4
