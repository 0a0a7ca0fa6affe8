"""Floor 6, engine backend: our own engine behind the routes, one part for each kind of request.

Owns the metrics, the model names and the embedder; the parts are `serve/engine_completions.py`, `engine_chat.py` and
`engine_infill.py`. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from highrise.core.errors import InputError, ServeError
from highrise.serve.backend import Embedder
from highrise.serve.engine_chat import EngineChat
from highrise.serve.engine_completions import EngineCompletions
from highrise.serve.engine_infill import EngineInfill
from highrise.serve.engine_inputs import EngineInputs, beside, not_served
from highrise.serve.generation import Generation, stopped
from highrise.serve.loaded_adapters import LoadedAdapter
from highrise.serve.metrics import Metrics, MetricsPage
from highrise.serve.protocol import (
    ApiError,
    Chat,
    ChatChunk,
    ChatRequest,
    Completion,
    CompletionRequest,
    Detokenized,
    DetokenizeRequest,
    Embedding,
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingUsage,
    InfillAnswer,
    InfillRequest,
    LoadAdapterRequest,
    Model,
    ModelList,
    Tokenized,
    TokenizeRequest,
    UnloadAdapterRequest,
    encode_floats,
    now,
)
from highrise.serve.translate import plain_message, shorten, split_prompts, token_text

if TYPE_CHECKING:
    import numpy as np
    from prometheus_client import Counter

    from highrise.serve.engine_view import EngineView, Runner

__all__ = ["EngineBackend"]


class EngineBackend:
    """Our own engine behind the routes; `name` is what /v1/models shows, `aliases` are accepted as well.

    Its metrics stand on `page`, which several models may share; requests that name no model are for the one that
    `is_first`.
    """

    def __init__(
        self,
        engine: EngineView,
        runner: Runner,
        *,
        name: str | None = None,
        aliases: Sequence[str] = (),
        embedder: Embedder | None = None,
        max_waiting: int = 256,
        answer_seconds: float | None = None,
        page: MetricsPage | None = None,
        is_first: bool = True,
    ) -> None:
        self.engine = engine
        self.runner = runner
        self.name = name or engine.name
        self.embedder = embedder
        self.metrics = Metrics(self.name, page)
        self.metrics.refresh_with(self._refresh_gauges)
        self._told: dict[Counter, int] = {}
        self._created = now()
        names = {self.name, *aliases} | ({"", engine.name} if is_first else set())
        inputs = EngineInputs(engine, name=self.name, names=names)
        generation = Generation(runner, self.metrics, max_waiting=max_waiting, answer_seconds=answer_seconds)
        self._inputs = inputs
        self._generation = generation
        self._completions = EngineCompletions(inputs, generation)
        self._chat = EngineChat(inputs, generation)
        self._infill = EngineInfill(inputs, generation)

    # ------------------------------------------------------------------------------------------------ what there is

    @property
    def max_context(self) -> int:
        """Longest prompt plus answer in tokens."""
        return self._inputs.max_context

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` under the engine's vocabulary."""
        return self._inputs.count(text)

    async def health(self) -> None:
        """The engine runs and answers."""
        try:
            self.runner.check()
        except ServeError as error:
            raise stopped(error) from error

    async def models(self) -> ModelList:
        """The decoder, its adapters, and the embedder when there is one."""
        models = [self._decoder(self.name), *map(self._adapter, self._adapters())]
        if self.embedder is not None:
            models.append(Model(id=self.embedder.name, root=self.embedder.name, created=self._created))
        return ModelList(models)

    async def model(self, name: str) -> Model:
        """The decoder under any name that requests may use, or the embedder."""
        for one in (await self.models()).data:
            if one.id == name:
                return one
        self._inputs.check_model(name)
        return self._decoder(name)

    def serves(self, model: str) -> bool:
        """Whether requests for `model` are answered here."""
        inside = self._inputs.is_base(model) or model in self.engine.adapters.names
        return inside or (self.embedder is not None and model == self.embedder.name)

    def _adapters(self) -> list[LoadedAdapter]:
        """Those that can be asked for beside the model itself."""
        adapters = self.engine.adapters
        return [one for one in map(adapters.find, adapters.names) if one is not self.engine.default_adapter]

    def _adapter(self, adapter: LoadedAdapter) -> Model:
        return Model(
            id=adapter.name,
            root=str(adapter.path),
            created=adapter.created,
            max_model_len=self.max_context,
            parent=self.name,
        )

    def _decoder(self, name: str) -> Model:
        return Model(id=name, root=self.name, created=self._created, max_model_len=self.max_context)

    async def load_adapter(self, request: LoadAdapterRequest) -> str:
        """Load a LoRA adapter from a folder of this machine; what happened, in a sentence."""
        name, adapters = request.lora_name, self.engine.adapters
        if self._inputs.is_base(name) or (self.embedder is not None and name == self.embedder.name):
            raise ApiError(f"'{name}' is the name of a model here; give the adapter another.", param="lora_name")
        if name in adapters.names and not request.load_inplace:
            raise ApiError(
                f"The adapter '{name}' is loaded already; unload it first, or set 'load_inplace' to true.",
                param="lora_name",
            )
        try:
            await self.runner.load_adapter(name, Path(request.lora_path), replace=request.load_inplace)
        except InputError as error:
            param = "lora_path" if request.lora_path in str(error) else "lora_name"
            raise ApiError(f"The adapter cannot be loaded: {error}.", param=param) from error
        except ServeError as error:
            raise stopped(error) from error
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload_adapter(self, request: UnloadAdapterRequest) -> str:
        """Refuse new requests under an adapter, and free it after the last; what happened, in a sentence."""
        name = request.lora_name
        if name not in self.engine.adapters.names:
            raise not_served(name, self.engine.adapters.names).renamed({"model": "lora_name"})
        try:
            await self.runner.unload_adapter(name)
        except InputError as error:
            raise ApiError(f"The adapter cannot be unloaded: {error}.", param="lora_name") from error
        except ServeError as error:
            raise stopped(error) from error
        return f"Success: LoRA adapter '{name}' removed successfully."

    async def close(self) -> None:
        """End the engine."""
        await asyncio.to_thread(self.runner.close)

    def _refresh_gauges(self) -> None:
        stats = self.runner.stats()
        self.metrics.running.set(stats.num_running)
        self.metrics.waiting.set(stats.num_waiting)
        self.metrics.cache_usage.set(stats.page_usage)
        if self.engine.adapters.names or stats.running_adapters or stats.waiting_adapters:
            most = self.engine.adapters.most
            self.metrics.adapters(most, running=stats.running_adapters, waiting=stats.waiting_adapters)
        for counter, total in (
            (self.metrics.preemptions, stats.num_preemptions),
            (self.metrics.drafted, stats.drafted_tokens),
            (self.metrics.accepted, stats.accepted_tokens),
            (self.metrics.restarts, self.runner.num_restarts),
        ):
            known = self._told.get(counter, 0)
            counter.inc(total - known if total >= known else total)  # an engine that was started again counts anew
            self._told[counter] = total
        self.metrics.up.set(self._answers())

    def _answers(self) -> bool:
        try:
            self.runner.check()
        except ServeError:
            return False
        return True

    # --------------------------------------------------------------------------------------------------- generation

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""
        return await self._completions.whole(request)

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces."""
        return await self._completions.stream(request)

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""
        return await self._chat.whole(request)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces."""
        return await self._chat.stream(request)

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle as llama.cpp's server does, one answer for each choice."""
        return await self._infill.whole(request)

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """The same in pieces."""
        return self._infill.stream(request)

    # ------------------------------------------------------------------------------------------ vectors, token ids

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """One vector a text. Token ids are read, and tokens counted, under the served model's vocabulary."""
        embedder = self.embedder
        inputs = split_prompts(request.input, "input")
        if embedder is None:
            prompts = await beside(sum(map(len, inputs)), lambda: [self._inputs.ids(one, "input") for one in inputs])
            return await self._embed_by_engine(request, prompts)
        texts = [
            one if isinstance(one, str) else self._inputs.tokenizer.decode(self._inputs.ids(one, "input"))
            for one in inputs
        ]
        vectors = await asyncio.to_thread(embedder.embed, texts)
        if request.dimensions is not None:
            vectors = shorten(vectors, request.dimensions)
        tokens = sum(self.count_tokens(text) for text in texts)
        return self._vectors(vectors, request, embedder.name, tokens)

    async def _embed_by_engine(self, request: EmbeddingRequest, prompts: list[list[int]]) -> EmbeddingList:
        """Without an embedding model: the mean of the decoder's last hidden states, good for little but duplicates."""
        adapter = self._inputs.adapter(request.model)
        for ids in prompts:
            if not ids:
                raise ApiError("A text is empty; there is nothing to embed.", param="input")
            self._inputs.room(ids, "input")
        try:
            vectors = await self.runner.embed(prompts, adapter=adapter)
        except ServeError as error:
            raise stopped(error) from error
        if request.dimensions is not None:
            vectors = shorten(vectors, request.dimensions)
        return self._vectors(vectors, request, adapter or self.name, sum(map(len, prompts)))

    def _vectors(
        self, vectors: np.ndarray[Any, Any], request: EmbeddingRequest, name: str, tokens: int
    ) -> EmbeddingList:
        form = request.encoding_format or "float"
        data = [Embedding(index=index, embedding=encode_floats(row, form)) for index, row in enumerate(vectors)]
        return EmbeddingList(data=data, model=name, usage=EmbeddingUsage(tokens, tokens))

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """Text, or a conversation under the chat template, as token ids."""
        self._inputs.check_model(request.model)
        if request.messages is not None:
            messages = [plain_message(message, place) for place, message in enumerate(request.messages)]
            ids = self._inputs.prompts.chat(messages).ids
        else:
            text = request.prompt if request.prompt is not None else request.content
            if text is None:
                raise ApiError("Give 'prompt' (or 'content'), or 'messages'.", param="prompt")
            ids = await beside(len(text), lambda: self._inputs.tokenizer.encode(text, special="all"))
        strings = [token_text(self._inputs.tokenizer, token) for token in ids] if request.return_token_strs else UNSET
        return Tokenized(tokens=list(ids), count=len(ids), max_model_len=self.max_context, token_strs=strings)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """Token ids as text."""
        self._inputs.check_model(request.model)
        text = self._inputs.tokenizer.decode(self._inputs.ids(request.tokens, "tokens")) if request.tokens else ""
        return Detokenized(text, text)
