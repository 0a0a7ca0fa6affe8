"""Floor 6, engine: requests in, tokens out, one step at a time. Knows neither threads (`runner.py`) nor the wire.

A step: the scheduler chooses tokens, the decoder computes them over the pages (`forward.py`), each finished row is
sampled.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape
from highrise.serve.begun import Begun, TokenIndex
from highrise.serve.cache import Cache
from highrise.serve.engine_stats import EngineStats
from highrise.serve.forward import Batch, Decoder, adapter_numbers, last_row, wanted_rows
from highrise.serve.loaded_adapters import LoadedAdapter, LoadedAdapters
from highrise.serve.request import FinishReason, Output, Priority, Request, Sampling, join
from highrise.serve.sampling import Sampler, token_logprob
from highrise.serve.scheduler import Scheduler, Work
from highrise.serve.sequence import Sequence

if TYPE_CHECKING:
    from highrise.encode.prompt import PromptFormat
    from highrise.encode.tokenizer import Tokenizer
    from highrise.serve.draft_model import DraftModel

__all__ = ["Engine"]

Floats = npt.NDArray[np.float32]

_RENEWAL = "\0renewal"


class Engine:
    """A loaded model with its queue. Not thread-safe: one thread adds, steps and cancels."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        shape: DecoderShape,
        tokenizer: Tokenizer,
        prompts: PromptFormat | None,
        num_pages: int,
        page_size: int = 16,
        max_context: int | None = None,
        step_tokens: int = 128,
        max_running: int = 16,
        max_waiting: int = 256,
        speculate: bool = True,
        draft: DraftModel | None = None,
        name: str = "model",
        eos_ids: tuple[int, ...] | None = None,
        exact_adapters: bool = False,
    ) -> None:
        self.decoder = decoder
        self.shape = shape
        self.tokenizer = tokenizer
        self.name = name
        self.adapters = LoadedAdapters(decoder, shape, exact=exact_adapters)
        self.default_adapter: LoadedAdapter | None = None
        """What requests run under that name no adapter."""
        self._prompts = prompts
        self.eos_ids = tuple(tokenizer.eos_ids) if eos_ids is None else eos_ids
        windows = [kind.window for kind in shape.layer_kinds]
        self.cache = Cache(num_pages, page_size, window=max(windows) if windows and all(windows) else 0)
        self.scheduler = Scheduler(
            self.cache,
            max_context=min(shape.max_position_embeddings, max_context or shape.max_position_embeddings),
            step_tokens=step_tokens,
            max_running=max_running,
            max_waiting=max_waiting,
            speculate=speculate,
            guesser=draft,
        )
        self._sequences: dict[str, Sequence] = {}
        self._sessions: dict[str, str] = {}
        self._token_index: TokenIndex | None = None
        self._names = itertools.count(1)
        self._cancelled: list[Output] = []
        pages_a_row = -(-self.max_context // page_size)
        self._table_SP = np.full((self.scheduler.max_running, pages_a_row), -1, dtype=np.int32)
        self._prompt_tokens = 0
        self._moved_tokens = 0
        self._drafted_tokens = 0
        self._accepted_tokens = 0
        self._generated_tokens = 0
        self._num_steps = 0
        self._step_seconds = 0.0

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        weights: Literal["stored", "int8", "int4", "float32"] = "stored",
        adapter: Path | None = None,
        threads: int | None = None,
        isa: str = "auto",
        num_pages: int | None = None,
        max_context: int | None = None,
        **options: Any,
    ) -> Engine:
        """Load a GGUF file or a Hugging Face folder; see `serve/loader.py` for what is derived and for `options`."""
        from highrise.serve.loader import load_engine

        return load_engine(
            path,
            weights=weights,
            adapter=adapter,
            threads=threads,
            isa=isa,
            num_pages=num_pages,
            max_context=max_context,
            **options,
        )

    @property
    def prompts(self) -> PromptFormat:
        """How this model wants its chat and fill-in-the-middle prompts."""
        if self._prompts is None:
            raise InputError(f"{self.name} was loaded without a prompt format; send token ids or plain text")
        return self._prompts

    @property
    def max_context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.scheduler.max_context

    @property
    def has_work(self) -> bool:
        """Whether `step` would return or compute anything."""
        return bool(self._sequences or self._cancelled)

    # ------------------------------------------------------------------------------------------------ requests

    def check(self, request: Request) -> None:
        """Raise `InputError` for what can never run. Reads only what does not change: any thread may call it."""
        self.scheduler.check(len(request.prompt_ids))
        lowest, highest = min(request.prompt_ids), max(request.prompt_ids)
        if lowest < 0 or highest >= self.shape.vocab_size:
            wrong = lowest if lowest < 0 else highest
            raise InputError(f"token id {wrong} is not in the vocabulary of {self.shape.vocab_size}")
        if request.begins and request.constraint is not None:
            raise InputError("begins and a constraint exclude each other; let the grammar begin with the text")
        start, end = request.floating or (0, 1)
        if request.floating is not None and not 0 <= start < end < len(request.prompt_ids):
            raise InputError(
                f"floating is {request.floating}; it must name tokens inside a prompt of {len(request.prompt_ids)}, "
                "the last one not among them"
            )
        self._adapter_of(request)

    def _adapter_of(self, request: Request) -> LoadedAdapter | None:
        return self.default_adapter if request.adapter is None else self.adapters.find(request.adapter)

    def load_adapter(self, name: str, folder: Path, *, default: bool = False) -> LoadedAdapter:
        """Load a LoRA adapter in PEFT's format for requests that name it, or with `default` for all others too.

        `InputError` for a name that is taken and for adapters that cannot be used.
        """
        adapter = self.adapters.prepare(name, folder)
        self.register_adapter(adapter)
        if default:
            self.default_adapter = adapter
        return adapter

    def register_adapter(self, adapter: LoadedAdapter, *, replace: bool = False) -> None:
        """Let requests ask for a prepared adapter (`LoadedAdapters.prepare`), in place of one of its name or not."""
        if replace and self.default_adapter is not None and self.default_adapter.name == adapter.name:
            self.default_adapter = adapter
        if self.adapters.register(adapter, replace=replace) is not None:
            self.cache.forget_adapter(adapter.name)

    def unload_adapter(self, name: str) -> None:
        """Refuse new requests for an adapter; those under way end with it, then its memory is free.

        Pages that it filled are never found again, not even by another adapter of its name.
        """
        if self.adapters.find(name) is self.default_adapter:
            raise InputError(f'adapter "{name}" is what {self.name} runs with; it stays as long as the model')
        self.adapters.unload(name)
        self.cache.forget_adapter(name)

    def add(self, request: Request) -> str:
        """Queue a request and return its id. `InputError` for what cannot run, `QueueFullError` when too many wait."""
        self.check(request)
        name = request.id or f"request-{next(self._names)}"
        if name in self._sequences:
            raise InputError(f'a request with the id "{name}" is in flight already')
        sampling = request.sampling
        sampler = Sampler(
            sampling,
            request.prompt_ids,
            vocab_size=self.shape.vocab_size,
            eos_ids=self.eos_ids,
            constraint=Begun(request.begins, self._begun_words()) if request.begins else request.constraint,
        )
        limit = self.max_context
        if sampling.max_tokens is not None:
            limit = min(limit, len(request.prompt_ids) + sampling.max_tokens)
        adapter = self._adapter_of(request)
        sequence = Sequence(
            msgspec.structs.replace(request, id=name),
            sampler=sampler,
            stream=self.tokenizer.decode_stream(),
            salt=self.cache.salt(request.salt, None if adapter is None else adapter.name),
            token_limit=limit,
            adapter=adapter,
        )
        sequence.arrived = time.perf_counter()
        if sequence.wants_prompt_logprobs:
            sequence.salt = self.cache.private_salt()
            sequence.prompt_logprobs = [None] * sequence.num_prompt
        if request.session and (older := self._sessions.get(request.session)) is not None:
            self.cancel(older)
        self._drop_renewal()
        self.scheduler.add(sequence)
        self.adapters.hold(adapter)
        self._sequences[name] = sequence
        if request.session:
            self._sessions[request.session] = name
        return name

    def _begun_words(self) -> TokenIndex:
        if self._token_index is None:
            specials = set(self.tokenizer.special_tokens.values())
            self._token_index = TokenIndex(
                lambda id: b"" if id in specials else self.tokenizer.token(id), self.tokenizer.vocab_size
            )
        return self._token_index

    def cancel(self, request_id: str) -> bool:
        """Stop a request; its pages are free when this returns. False when there is no such request any more."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return False
        self._cancelled.append(self._output(sequence, finish_reason="cancelled"))
        self._remove(sequence)
        return True

    def _renew(self, sequence: Sequence) -> None:
        """Compute the floating span of an answered request anew, behind everything else: the next key finds it fresh.

        One at a time; any new request ends it, and the request's own next pause begins another.
        """
        if self.scheduler.waiting:
            return
        own = Sampling(temperature=0, max_tokens=0)
        request = msgspec.structs.replace(
            sequence.request, id=_RENEWAL, sampling=own, priority=Priority.BATCH, session="", begins="", constraint=None
        )
        renewal = Sequence(
            request,
            sampler=Sampler(own, request.prompt_ids, vocab_size=self.shape.vocab_size, eos_ids=self.eos_ids),
            stream=self.tokenizer.decode_stream(),
            salt=sequence.salt,
            token_limit=sequence.num_prompt,
            adapter=sequence.adapter,
        )
        renewal.renews = True
        self._drop_renewal()
        self.scheduler.add(renewal)
        self.adapters.hold(renewal.adapter)
        self._sequences[_RENEWAL] = renewal

    def _drop_renewal(self) -> None:
        if (renewal := self._sequences.get(_RENEWAL)) is not None:
            self._remove(renewal)

    def _remove(self, sequence: Sequence) -> None:
        self.scheduler.remove(sequence)
        self.adapters.release(sequence.adapter)
        request = sequence.request
        del self._sequences[request.id]
        if request.session and self._sessions.get(request.session) == request.id:
            del self._sessions[request.session]

    # ------------------------------------------------------------------------------------------------ one step

    def step(self) -> list[Output]:
        """Compute one batch; what it added to each request, and what was cancelled since the last step."""
        outputs, self._cancelled = self._cancelled, []
        started = time.perf_counter()
        work = self.scheduler.schedule()
        if not work:
            return outputs
        computing = time.perf_counter()  # a draft model's time is not that of a step of so many tokens
        batch = Batch(work, self.cache, self._table_SP)
        self._transfer()
        logits, rows = batch.run(self.decoder), batch.first_rows
        self.scheduler.advance(work)
        for item in work:
            self._count(item, started)
            row = rows.get(item.sequence.request.id)
            if item.sequence.prompt_logprobs is not None:
                self._score_prompt(item, logits, 0 if row is None else row)
            if item.finishes:
                assert row is not None
                outputs.append(self._choose_all(item, logits[row + last_row(item) :]))
        self._num_steps += 1
        seconds = time.perf_counter() - started
        self._step_seconds += seconds
        outputs = [output for output in outputs if output.request_id != _RENEWAL]
        self.scheduler.see(sum(len(item.places) for item in work), started + seconds - computing)
        return outputs

    def _choose_all(self, item: Work, logits_RV: Floats) -> Output:  # noqa: N803
        """The next token and, as far as the guesses turn out to be what is chosen, those after it: one output."""
        outputs = [self._choose(item.sequence, logits_RV[0])]
        if not item.drafts:
            return outputs[0]
        num_right = 0
        for draft, logits_V in zip(item.drafts, logits_RV[1:], strict=False):  # noqa: N806
            if outputs[-1].finish_reason is not None or outputs[-1].ids != (draft,):
                break
            num_right += 1
            outputs.append(self._choose(item.sequence, logits_V))
        self.scheduler.settle(item, num_right)
        self._drafted_tokens += len(item.drafts)
        self._accepted_tokens += num_right
        return join(outputs)

    def _transfer(self) -> None:
        """Copies and moves inside the pages that the step relies on."""
        copies, moves = self.cache.take_transfers()
        if len(copies):
            source, target = np.ascontiguousarray(copies.T)
            self.decoder.copy_pages(source, target)
        for move in moves:
            source, target = self.cache.row(move.source), self.cache.row(move.target)
            self.decoder.move_tokens(source, target, move.start, move.to, move.count)
            self._moved_tokens += move.count

    def _count(self, item: Work, started: float) -> None:
        if item.sequence.started is None:
            item.sequence.started = started
        end = item.sequence.num_prompt
        self._prompt_tokens += sum(place < end for place in item.places)

    def _score_prompt(self, item: Work, logits: Floats, first_row: int) -> None:
        sequence = item.sequence
        assert sequence.prompt_logprobs is not None
        num_top = sequence.request.sampling.logprobs or 0
        for offset in wanted_rows(item):
            following = item.start + offset + 1
            if following < sequence.num_prompt:
                scored = token_logprob(logits[first_row + offset], sequence.tokens[following], num_top)
                sequence.prompt_logprobs[following] = scored

    def _choose(self, sequence: Sequence, logits_V: Floats) -> Output:  # noqa: N803
        """Take the next token, or end at once when none was asked for."""
        sampling = sequence.request.sampling
        if sampling.max_tokens == 0:
            output = self._output(sequence, finish_reason="length")
            self._remove(sequence)
            return output
        token = sequence.sampler.choose(logits_V, sequence.num_generated)
        scored = None if sampling.logprobs is None else (token_logprob(logits_V, token, sampling.logprobs),)
        sequence.tokens.append(token)
        self._generated_tokens += 1
        reason: FinishReason | None = None
        stop: str | int | None = None
        if token in sampling.stop_ids or (token in self.eos_ids and not sampling.ignore_eos):
            reason, stop = "stop", token
            text = self._rest(sequence)
        else:
            text, stop = sequence.stop.push(sequence.show(sequence.stream.push(token)))
            if stop is not None:
                reason = "stop"
            elif (reason := sequence.sampler.ended) is not None:
                text += self._rest(sequence)
            elif len(sequence.tokens) >= sequence.token_limit:
                reason = "length"
                text += self._rest(sequence)
        output = self._output(
            sequence, ids=(token,), text=text, logprobs=scored, finish_reason=reason, stop_reason=stop
        )
        if reason is not None:
            stale = self.cache.floating.is_stale(sequence)
            leaving = sequence.adapter is not None and sequence.adapter.leaving
            self._remove(sequence)
            if stale and not leaving:
                self._renew(sequence)
        return output

    @staticmethod
    def _rest(sequence: Sequence) -> str:
        """Text held back inside the decoder of characters and the matcher of stop strings."""
        text, stop = sequence.stop.push(sequence.show(sequence.stream.finish()))
        return text if stop is not None else text + sequence.stop.finish()

    def _output(
        self,
        sequence: Sequence,
        *,
        ids: tuple[int, ...] = (),
        text: str = "",
        logprobs: tuple[Any, ...] | None = None,
        finish_reason: FinishReason | None = None,
        stop_reason: str | int | None = None,
    ) -> Output:
        first, sequence.first_output = sequence.first_output, False
        scores = sequence.prompt_logprobs
        return Output(
            request_id=sequence.request.id,
            ids=ids,
            text=text,
            logprobs=logprobs,
            prompt_logprobs=tuple(scores) if first and scores is not None else None,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            num_prompt_tokens=sequence.num_prompt,
            num_cached_tokens=sequence.num_cached,
            num_generated=sequence.num_generated,
            queue_seconds=sequence.queue_seconds,
        )

    # ------------------------------------------------------------------------------------------------ whole answers

    def generate(self, requests: Items[Request]) -> list[list[Output]]:
        """Run requests to their end and return the outputs of each, in the order given."""
        names = [self.add(request) for request in requests]
        collected: dict[str, list[Output]] = {name: [] for name in names}
        while any(name in self._sequences for name in names):
            for output in self.step():
                if output.request_id in collected:
                    collected[output.request_id].append(output)
        return [collected[name] for name in names]

    def embed(
        self,
        prompts: Items[Items[int]],
        *,
        adapter: str | None = None,
        between: Callable[[], None] | None = None,
    ) -> Floats:
        """Mean of the last hidden states of each prompt's tokens, scaled to length 1: float32 (len(prompts), hidden).

        Pages are borrowed for the time of one prompt. `between` is called after each.
        """
        vectors = np.empty((len(prompts), self.shape.hidden_size), dtype=np.float32)
        for index, ids in enumerate(prompts):
            request = Request(prompt_ids=list(ids), adapter=adapter)
            self.check(request)
            mean = self._mean_hidden(request)
            vectors[index] = mean / max(float(np.linalg.norm(mean)), 1e-12)
            if between is not None:
                between()
        return vectors

    def _mean_hidden(self, request: Request) -> npt.NDArray[np.float64]:
        sampler = Sampler(request.sampling, [], vocab_size=self.shape.vocab_size, eos_ids=self.eos_ids)
        stream = self.tokenizer.decode_stream()
        sequence = Sequence(
            request, sampler=sampler, stream=stream, salt=self.cache.private_salt(), token_limit=self.max_context
        )
        if not self.cache.admit(sequence):
            raise InputError(
                f"no room to embed a text of {sequence.num_prompt} tokens now; try again when less is running"
            )
        try:
            table = np.full((1, self._table_SP.shape[1]), -1, dtype=np.int32)
            self.cache.write_tables([sequence], table)
            adapters = adapter_numbers([self._adapter_of(request)])
            total = np.zeros(self.shape.hidden_size)
            for start in range(0, sequence.num_prompt, self.scheduler.step_tokens):
                tokens = np.array(sequence.tokens[start : start + self.scheduler.step_tokens], dtype=np.int32)
                positions = np.arange(start, start + len(tokens), dtype=np.int32)
                states = self.decoder.hidden(tokens, positions, np.zeros_like(tokens), table, adapters)
                total += states.sum(axis=0, dtype=np.float64)
            return total / sequence.num_prompt
        finally:
            self.cache.release(sequence)

    def stats(self) -> EngineStats:
        """Counts and state; cheap enough to be asked for at any time."""
        pages = self.cache.statistics()
        return EngineStats(
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            page_usage=pages["num_held"] / max(pages["num_pages"], 1),
            num_pages=pages["num_pages"],
            num_free_pages=pages["num_free"],
            queried_tokens=pages["queried_tokens"],
            cached_tokens=pages["cached_tokens"],
            moved_tokens=self._moved_tokens,
            drafted_tokens=self._drafted_tokens,
            accepted_tokens=self._accepted_tokens,
            num_preemptions=self.scheduler.num_preemptions,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            num_steps=self._num_steps,
            step_seconds=self._step_seconds,
            running_adapters=_names(self.scheduler.running),
            waiting_adapters=_names(self.scheduler.waiting),
        )


def _names(sequences: list[Sequence]) -> tuple[str, ...]:
    return tuple(sorted({sequence.adapter.name for sequence in [*sequences] if sequence.adapter is not None}))
