"""Floor 6, several: one backend in front of several, each with a model of its own; a request's `model` picks.

A request that names none goes to the first. Knows neither engines nor HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from highrise.serve.engine_inputs import not_served
from highrise.serve.protocol import (
    ApiError,
    Chat,
    ChatChunk,
    ChatRequest,
    Completion,
    CompletionRequest,
    Detokenized,
    DetokenizeRequest,
    EmbeddingList,
    EmbeddingRequest,
    InfillAnswer,
    InfillRequest,
    LoadAdapterRequest,
    Model,
    ModelList,
    Tokenized,
    TokenizeRequest,
    UnloadAdapterRequest,
)

if TYPE_CHECKING:
    from highrise.serve.engine_backend import EngineBackend
    from highrise.serve.engine_view import EngineView

__all__ = ["SeveralBackends"]


class SeveralBackends:
    """The backends in the order in which they are listed; they share one page of metrics."""

    def __init__(self, backends: Sequence[EngineBackend]) -> None:
        self._backends = tuple(backends)
        self.name = backends[0].name
        self.metrics = backends[0].metrics

    def _for(self, model: str) -> EngineBackend:
        """The backend that serves `model`; `ApiError` (404) when none does."""
        for backend in self._backends:
            if backend.serves(model):
                return backend
        raise not_served(model, [backend.name for backend in self._backends])

    @property
    def engine(self) -> EngineView:
        """The first model's."""
        return self._backends[0].engine

    @property
    def max_context(self) -> int | None:
        """Of the first model."""
        return self._backends[0].max_context

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` under the first model's vocabulary."""
        return self._backends[0].count_tokens(text)

    async def health(self) -> None:
        """Return when every model answers."""
        for backend in self._backends:
            try:
                await backend.health()
            except ApiError as error:
                message = f"{backend.name}: {error.message}"
                raise ApiError(
                    message, status=error.status, type=error.type, code=error.code, headers=error.headers
                ) from error

    async def models(self) -> ModelList:
        """What any of them can be asked for."""
        lists = [await backend.models() for backend in self._backends]
        return ModelList([model for one in lists for model in one.data])

    async def model(self, name: str) -> Model:
        """The model that requests may call `name`."""
        return await self._for(name).model(name)

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""
        return await self._for(request.model).complete(request)

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces."""
        return await self._for(request.model).stream_complete(request)

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""
        return await self._for(request.model).chat(request)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces."""
        return await self._for(request.model).stream_chat(request)

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle."""
        return await self._for(request.model).infill(request)

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """The same in pieces."""
        return await self._for(request.model).stream_infill(request)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """One vector a text."""
        return await self._for(request.model).embed(request)

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """Text as token ids."""
        return await self._for(request.model).tokenize(request)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """Token ids as text."""
        return await self._for(request.model).detokenize(request)

    async def load_adapter(self, request: LoadAdapterRequest) -> str:
        """Load an adapter beside the first model."""
        for backend in self._backends[1:]:
            if backend.serves(request.lora_name):
                raise ApiError(
                    f"'{request.lora_name}' is the name of a model here; give the adapter another.", param="lora_name"
                )
        return await self._backends[0].load_adapter(request)

    async def unload_adapter(self, request: UnloadAdapterRequest) -> str:
        """Drop an adapter of the first model."""
        return await self._backends[0].unload_adapter(request)

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(*(backend.close() for backend in self._backends))
