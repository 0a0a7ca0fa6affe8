"""Floor 6, engine infill: llama.cpp's /infill over our own engine, with its two ways to end and its timings.

Knows no HTTP; where an answer ends is `serve/infill.py`'s knowledge.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import msgspec

from highrise.serve.engine_inputs import EngineInputs
from highrise.serve.generation import Generation, merge, num_choices, sampling_of
from highrise.serve.infill import InfillStop
from highrise.serve.protocol import ApiError, InfillAnswer, InfillRequest, InfillSettings, InfillTimings, SamplingFields
from highrise.serve.request import Output, Priority

__all__ = ["EngineInfill"]

_DEFAULT_TOKENS = 128
_THEIR_NAMES = {
    "max_tokens": "n_predict",
    "n": "n_cmpl",
    "repetition_penalty": "repeat_penalty",
    "suffix": "input_suffix",
}


class EngineInfill:
    """Answers infill requests."""

    def __init__(self, inputs: EngineInputs, generation: Generation) -> None:
        self._inputs = inputs
        self._generation = generation

    async def whole(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle as llama.cpp's server does, one answer for each choice."""
        answers: dict[int, InfillAnswer] = {}
        async for piece in self.stream(request):
            before = answers.get(piece.index)
            answers[piece.index] = (
                msgspec.structs.replace(piece, content=before.content + piece.content) if before else piece
            )
        return [answers[index] for index in sorted(answers)]

    def stream(self, request: InfillRequest) -> AsyncGenerator[InfillAnswer, None]:
        """The same in pieces; what is wrong with the request is refused at once."""
        try:
            return self._begin(request)
        except ApiError as error:
            raise error.renamed(_THEIR_NAMES) from error

    def _begin(self, request: InfillRequest) -> AsyncGenerator[InfillAnswer, None]:
        adapter = self._inputs.adapter(request.model)
        wanted = min(_DEFAULT_TOKENS, self._inputs.max_context // 4)
        if request.n_predict is not None and request.n_predict >= 0:
            wanted = request.n_predict
        extra = [(piece.filename, piece.text) for piece in request.input_extra or ()]
        prompt, truncated = self._inputs.middle(
            request.input_prefix + (request.prompt or ""),
            request.input_suffix,
            extra,
            wanted,
            path=request.path,
            repository=request.repository,
        )
        fields = SamplingFields(
            temperature=request.temperature or 0.0,  # llama.cpp's 0.8 makes small models miss the end of a begun word
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            repetition_penalty=request.repeat_penalty,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            seed=None if request.seed is None or request.seed < 0 else request.seed,
            stop=request.stop,
            n=request.n_cmpl,
        )
        ids = prompt.ids
        room = self._inputs.room(ids, "input_prefix")
        begun = self._inputs.count(prompt.begun) if wanted else 0
        sampling = sampling_of(
            fields,
            max_tokens=min(wanted + begun, room),
            stop_ids=prompt.stop_ids,
            vocab_size=self._inputs.tokenizer.vocab_size,
        )
        streams = self._generation.start(
            ids,
            sampling,
            count=num_choices(fields),
            priority=Priority.TYPING,
            session=request.session,
            fill_in=prompt,
            adapter=adapter,
        )
        return self._stream(request, adapter or self._inputs.name, ids, truncated, streams)

    async def _stream(
        self,
        request: InfillRequest,
        model: str,
        ids: list[int],
        truncated: bool,
        streams: list[AsyncGenerator[Output, None]],
    ) -> AsyncGenerator[InfillAnswer, None]:
        started = time.perf_counter()
        first_token = 0.0
        stops = [InfillStop(indent=request.n_indent or 0, milliseconds=request.t_max_predict_ms) for _ in streams]
        done: set[int] = set()
        pieces = merge(streams)
        try:
            async for index, output in pieces:
                if index in done:
                    continue
                first_token = first_token or time.perf_counter()
                stop = stops[index]
                text = stop.push(output.text)
                reason = output.finish_reason or ("stop" if stop.ended else None)
                if reason is None:
                    if text:
                        yield InfillAnswer(content=text, stop=False, index=index, model=model)
                    continue
                done.add(index)
                yield self._last(index, model, text, reason, output, len(ids), truncated, started, first_token)
                if len(done) == len(streams):
                    break
        finally:
            await pieces.aclose()

    def _last(
        self,
        index: int,
        model: str,
        text: str,
        reason: str,
        output: Output,
        num_prompt: int,
        truncated: bool,
        started: float,
        first_token: float,
    ) -> InfillAnswer:
        prompt_ms = (first_token - started) * 1000
        predicted_ms = (time.perf_counter() - first_token) * 1000
        computed = num_prompt - output.num_cached_tokens
        return InfillAnswer(
            content=text,
            stop=True,
            model=model,
            index=index,
            tokens_predicted=output.num_generated,
            tokens_evaluated=num_prompt,
            tokens_cached=num_prompt + output.num_generated,
            truncated=truncated,
            stop_type="limit" if reason == "length" else "eos",
            timings=InfillTimings(
                prompt_n=computed,
                prompt_ms=prompt_ms,
                prompt_per_second=computed / max(prompt_ms, 1e-3) * 1000,
                predicted_n=output.num_generated,
                predicted_ms=predicted_ms,
                predicted_per_second=output.num_generated / max(predicted_ms, 1e-3) * 1000,
            ),
            generation_settings=InfillSettings(self._inputs.max_context),
        )
