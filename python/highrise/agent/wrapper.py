"""Floor 7, wrapper: a backend that hands everything on to another, for the agent's layers to stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from highrise.serve.backend import Backend
from highrise.serve.protocol import (
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
    Model,
    ModelList,
    Tokenized,
    TokenizeRequest,
)

__all__ = ["Wrapper"]


class Wrapper:
    """Behaves as `inner`; a layer overrides what it changes."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = inner.name
        self.metrics = inner.metrics

    @property
    def max_context(self) -> int | None:
        """As the backend below."""
        return self.inner.max_context

    def count_tokens(self, text: str) -> int:
        """As the backend below."""
        return self.inner.count_tokens(text)

    async def health(self) -> None:
        """As the backend below."""
        await self.inner.health()

    async def models(self) -> ModelList:
        """As the backend below."""
        return await self.inner.models()

    async def model(self, name: str) -> Model:
        """As the backend below."""
        return await self.inner.model(name)

    async def complete(self, request: CompletionRequest) -> Completion:
        """As the backend below."""
        return await self.inner.complete(request)

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """As the backend below."""
        return await self.inner.stream_complete(request)

    async def chat(self, request: ChatRequest) -> Chat:
        """As the backend below."""
        return await self.inner.chat(request)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """As the backend below."""
        return await self.inner.stream_chat(request)

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """As the backend below."""
        return await self.inner.infill(request)

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """As the backend below."""
        return await self.inner.stream_infill(request)

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """As the backend below."""
        return await self.inner.embed(request)

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """As the backend below."""
        return await self.inner.tokenize(request)

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """As the backend below."""
        return await self.inner.detokenize(request)

    async def close(self) -> None:
        """As the backend below."""
        await self.inner.close()
