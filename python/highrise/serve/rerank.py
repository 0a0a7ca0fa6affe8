"""Floor 6, rerank: documents by how near their vectors are to the query's, over any backend that gives vectors.

The score is the cosine of the angle between the two, as vLLM's is with an embedding model: good to put the hits of a
search in order, no probability. Knows neither engines nor HTTP.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from highrise.serve.backend import Backend
from highrise.serve.protocol import (
    ApiError,
    EmbeddingList,
    EmbeddingRequest,
    RankedDocument,
    RerankAnswer,
    RerankDocument,
    RerankRequest,
    Score,
    ScoreList,
    ScoreRequest,
    new_id,
    now,
)

__all__ = ["rerank", "score"]

_MOST = 1000


async def rerank(request: RerankRequest, backend: Backend) -> RerankAnswer:
    """The documents, best first; equal ones in their order."""
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    _check(texts, "documents")
    _check([request.query], "query")
    if request.top_n is not None and request.top_n < 1:
        raise ApiError(f"'top_n' is {request.top_n}; it must be at least 1.", param="top_n")
    answer, vectors = await _vectors([request.query, *texts], request.model, backend, "documents")
    scores = vectors[1:] @ vectors[0]
    best = np.argsort(-scores, kind="stable")[: request.top_n].tolist()
    results = [
        RankedDocument(
            index=index,
            relevance_score=float(scores[index]),
            document=RerankDocument(texts[index]) if request.return_documents else None,
        )
        for index in best
    ]
    return RerankAnswer(id=new_id("rerank"), model=answer.model, usage=answer.usage, results=results)


async def score(request: ScoreRequest, backend: Backend) -> ScoreList:
    """One score a pair."""
    first, second = ([one] if isinstance(one, str) else one for one in (request.text_1, request.text_2))
    _check(first, "text_1")
    _check(second, "text_2")
    if len(first) not in (1, len(second)):
        raise ApiError(
            f"'text_1' has {len(first)} texts and 'text_2' {len(second)}; give one of the first, or as many of both.",
            param="text_1",
        )
    answer, vectors = await _vectors([*first, *second], request.model, backend, "text_2")
    scores = (vectors[: len(first)] * vectors[len(first) :]).sum(axis=1)
    data = [Score(index=index, score=round(float(one), 6)) for index, one in enumerate(scores)]
    return ScoreList(id=new_id("score"), created=now(), model=answer.model, data=data, usage=answer.usage)


def _check(texts: Sequence[str], param: str) -> None:
    if not texts or len(texts) > _MOST:
        raise ApiError(f"'{param}' has {len(texts)} texts; 1 to {_MOST} are taken.", param=param)
    if (empty := next((index for index, text in enumerate(texts) if not text.strip()), None)) is not None:
        raise ApiError(f"Text {empty} of '{param}' is empty; leave it out.", param=param)


async def _vectors(
    texts: Sequence[str], model: str, backend: Backend, param: str
) -> tuple[EmbeddingList, npt.NDArray[np.float32]]:
    """Rows of length 1."""
    wanted = EmbeddingRequest(input=list(texts), model=model, encoding_format="base64")
    try:
        answer = await backend.embed(wanted)
    except ApiError as error:
        raise error.renamed({"input": param}) from error
    rows = np.stack([_row(one.embedding) for one in sorted(answer.data, key=lambda one: one.index)])
    return answer, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _row(embedding: Any) -> npt.NDArray[np.float32]:
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding), dtype="<f4")
    return np.array(embedding, dtype=np.float32)
