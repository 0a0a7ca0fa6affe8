"""Floor 6, sequence: the state of one request inside the engine. Knows not how pages or tokens are chosen."""

from __future__ import annotations

from typing import Protocol

from highrise.serve.loaded_adapters import LoadedAdapter
from highrise.serve.request import Request, TokenLogprob
from highrise.serve.sampling import Sampler
from highrise.serve.speculative import DraftLength, Lookup
from highrise.serve.stop import StopMatcher

__all__ = ["DecodeStream", "Sequence"]


class DecodeStream(Protocol):
    """Token ids in, text out, never half a character (`Tokenizer.decode_stream`)."""

    def push(self, id: int, /) -> str:
        """Text that became certain with this token."""
        ...

    def finish(self) -> str:
        """What is left at the end."""
        ...


class Sequence:
    """A request on its way: its tokens, how many of them are computed, and which pages hold them."""

    __slots__ = (
        "adapter",
        "arrival",
        "arrival_step",
        "arrived",
        "chunk_limit",
        "draft_length",
        "drift",
        "first_output",
        "handle",
        "hole",
        "lookup",
        "model_length",
        "num_cached",
        "num_computed",
        "num_preemptions",
        "num_prompt",
        "num_reserved",
        "num_slid",
        "prompt_logprobs",
        "renews",
        "request",
        "salt",
        "sampler",
        "skip",
        "started",
        "stop",
        "stream",
        "token_limit",
        "tokens",
    )

    def __init__(
        self,
        request: Request,
        *,
        sampler: Sampler,
        stream: DecodeStream,
        salt: int,
        token_limit: int,
        adapter: LoadedAdapter | None = None,
    ) -> None:
        self.tokens = list(request.prompt_ids)
        self.request = request
        self.num_prompt = len(request.prompt_ids)
        self.num_computed = 0
        """Leading tokens whose keys and values are in the pages."""
        self.num_cached = 0
        """Leading prompt tokens that were found in the cache on first admission."""
        self.num_reserved = 0
        """New tokens that have a slot in the pages."""
        self.num_slid = 0
        """Leading pages that were given back because no later token sees them."""
        self.num_preemptions = 0
        self.handle: int | None = None
        """Name of the sequence in the page allocator; None while it holds no page."""
        self.hole: tuple[int, int] | None = None
        """Tokens from .. to that are not computed, because they were taken over from an earlier request."""
        self.drift = 0
        """Tokens by which the text before the hole has changed since what fills it was computed."""
        self.renews = False
        """Whether the floating span is computed anew in any case."""
        self.skip = request.begins
        """Text still to come that is not shown."""
        self.arrival = 0
        """Counts requests, so that the earlier goes first."""
        self.arrival_step = 0
        self.arrived = 0.0
        """When the engine took the request, by its clock in seconds."""
        self.started: float | None = None
        """When the first step of it began."""
        self.chunk_limit = 32 if self.wants_prompt_logprobs else 1 << 30
        """Tokens of the prompt a step: logits of every position are wide."""
        self.salt = salt
        self.adapter = adapter
        self.token_limit = token_limit
        """Prompt and answer together never grow beyond this many tokens."""
        self.lookup = Lookup()
        self.draft_length = DraftLength()
        self.model_length = DraftLength()
        """Of guesses of a draft model; `draft_length` is of those that were looked up."""
        self.sampler = sampler
        self.stream = stream
        self.stop = StopMatcher(request.sampling.stop)
        self.first_output = True
        self.prompt_logprobs: list[TokenLogprob | None] | None = None

    @property
    def num_generated(self) -> int:
        """New tokens so far."""
        return len(self.tokens) - self.num_prompt

    @property
    def queue_seconds(self) -> float:
        """From arrival to the first step."""
        return 0.0 if self.started is None else self.started - self.arrived

    @property
    def num_missing(self) -> int:
        """Tokens still to be computed before the next one can be chosen."""
        return len(self.tokens) - self.num_computed

    @property
    def num_exact(self) -> int:
        """Leading computed tokens that others may share: nothing from a hole on."""
        return self.num_computed if self.hole is None else min(self.num_computed, self.hole[0])

    def chunk(self, budget: int) -> tuple[int, int]:
        """The next tokens when `budget` of them may be computed: how many, and how many of these cost something."""
        budget = min(budget, self.chunk_limit)
        if self.hole is None or self.num_computed >= self.hole[1]:
            count = min(self.num_missing, budget)
            return count, count
        start, end = self.hole
        before = max(start - self.num_computed, 0)
        skipped = end - max(start, self.num_computed)
        cost = min(self.num_missing - skipped, budget)
        return (cost + skipped, cost) if cost > before else (cost, cost)

    def show(self, text: str) -> str:
        """`text` without what of it belongs to the begun word."""
        if not self.skip:
            return text
        count = min(len(self.skip), len(text))
        self.skip = self.skip[count:]
        return text[count:]

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether logits of every prompt position are needed."""
        return self.request.sampling.echo and self.request.sampling.logprobs is not None
