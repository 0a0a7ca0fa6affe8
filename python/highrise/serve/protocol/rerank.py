"""Floor 6, wire: /v1/rerank as Jina, Cohere, vLLM and llama.cpp have it, and vLLM's /v1/score."""

from __future__ import annotations

from typing import Literal

import msgspec

from highrise.serve.protocol.embeddings import EmbeddingUsage

__all__ = ["RankedDocument", "RerankAnswer", "RerankDocument", "RerankRequest", "Score", "ScoreList", "ScoreRequest"]


class RerankDocument(msgspec.Struct):
    """A document as an object."""

    text: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """POST /v1/rerank: which of the documents answer the query?"""

    query: str
    documents: list[str | RerankDocument]
    model: str = ""
    top_n: int | None = None
    """At most so many of them, the best."""
    return_documents: bool = True


class RankedDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One document by its place in the request."""

    index: int
    relevance_score: float
    document: RerankDocument | None = None

    def __post_init__(self) -> None:
        self.relevance_score = round(self.relevance_score, 6)


class RerankAnswer(msgspec.Struct, kw_only=True):
    """The answer of /v1/rerank, best first."""

    id: str
    model: str
    usage: EmbeddingUsage
    results: list[RankedDocument]
    object: Literal["list"] = "list"


class ScoreRequest(msgspec.Struct, kw_only=True):
    """POST /v1/score: one text against each of several, or as many against as many, pair by pair."""

    text_1: str | list[str]
    text_2: str | list[str]
    model: str = ""


class Score(msgspec.Struct, kw_only=True):
    """How near the texts of one pair are."""

    index: int
    score: float
    object: Literal["score"] = "score"


class ScoreList(msgspec.Struct, kw_only=True):
    """The answer of /v1/score."""

    id: str
    created: int
    model: str
    data: list[Score]
    usage: EmbeddingUsage
    object: Literal["list"] = "list"
