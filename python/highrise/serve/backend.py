"""Floor 6, backend: the agreement between the routes and whatever answers behind them.

A backend takes the wire's requests, gives the wire's answers, and refuses with `ApiError`. It knows prompts, sampling
and token counts, and nothing of HTTP. Ours is `serve/engine_backend.py`, another server is `serve/upstream.py`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from highrise.serve.metrics import Metrics
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
    LoadAdapterRequest,
    Model,
    ModelList,
    Tokenized,
    TokenizeRequest,
    UnloadAdapterRequest,
)

if TYPE_CHECKING:
    import numpy as np

__all__ = ["AdapterLoader", "Backend", "Embedder"]


class Backend(Protocol):
    """The agreement between the routes and whatever answers. Streams refuse before their first item, or not at all."""

    name: str
    metrics: Metrics

    @property
    def max_context(self) -> int | None:
        """Longest prompt plus answer in tokens; None when nobody knows."""

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, exact or estimated."""

    async def health(self) -> None:
        """Return when requests can be answered; raise `ApiError` (503) when not."""

    async def models(self) -> ModelList:
        """What can be asked for."""

    async def model(self, name: str) -> Model:
        """The model that requests may call `name`; `ApiError` (404) when there is none."""

    async def complete(self, request: CompletionRequest) -> Completion:
        """Continue a prompt, or fill a middle."""

    async def stream_complete(self, request: CompletionRequest) -> AsyncIterator[Completion]:
        """The same in pieces."""

    async def chat(self, request: ChatRequest) -> Chat:
        """Answer a conversation."""

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[ChatChunk]:
        """The same in pieces."""

    async def infill(self, request: InfillRequest) -> list[InfillAnswer]:
        """Fill a middle as llama.cpp's server does, one answer for each choice."""

    async def stream_infill(self, request: InfillRequest) -> AsyncIterator[InfillAnswer]:
        """The same in pieces."""

    async def embed(self, request: EmbeddingRequest) -> EmbeddingList:
        """One vector a text."""

    async def tokenize(self, request: TokenizeRequest) -> Tokenized:
        """Text as token ids."""

    async def detokenize(self, request: DetokenizeRequest) -> Detokenized:
        """Token ids as text."""

    async def close(self) -> None:
        """Stop and free what is held."""


class AdapterLoader(Protocol):
    """A backend that takes and drops LoRA adapters while it runs. Both tell what happened in a sentence."""

    async def load_adapter(self, request: LoadAdapterRequest) -> str:
        """Load an adapter from a folder of the server's machine; `ApiError` when that cannot be done."""

    async def unload_adapter(self, request: UnloadAdapterRequest) -> str:
        """Drop one; requests under way end with it. `ApiError` (404) when there is none of that name."""


class Embedder(Protocol):
    """A model that turns texts into vectors; `highrise.encode.minilm.MiniLm` is one."""

    @property
    def name(self) -> str:
        """What /v1/models calls it."""

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """float32 (num_texts, dimensions), rows of length 1."""
