"""Floor 6, HTTP: the routes of the OpenAI protocol and of llama.cpp's /infill over any backend.

Reads the body, asks the backend, sends the answer; stops the work when the client goes away. Knows neither prompts nor
engines. The agent composes these routes with its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

from litestar import Litestar, Request, Router, get, post
from litestar.exceptions import HTTPException
from litestar.response import Response
from litestar.types import ASGIApp, ExceptionHandlersMap

from highrise.core.errors import HighriseError
from highrise.serve.answers import DONE, DisconnectedError, EventStream, JsonAnswer, event, explain, unless_disconnected
from highrise.serve.backend import Backend
from highrise.serve.gate import ALIVE, READY
from highrise.serve.openapi import openapi_config, openapi_json, operation_with_body
from highrise.serve.protocol import (
    ApiError,
    Chat,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    InfillRequest,
    RerankRequest,
    ResponseAnswer,
    ResponseEvent,
    ResponseRequest,
    ScoreRequest,
    TokenizeRequest,
    decode,
    encode,
)
from highrise.serve.rerank import rerank, score
from highrise.serve.response_stream import response_events
from highrise.serve.responses import CHAT_NAMES, chat_of, complete

__all__ = ["body_of", "error_handlers", "request_id", "serve_app", "serve_routes"]

AnyRequest = Request[Any, Any, Any]

MAX_BODY = 32 << 20


def request_id(request: AnyRequest) -> str:
    """The client's x-request-id, or one made here; the same for the whole request."""
    known = request.scope["state"].get("highrise_request_id")
    if known is None:
        given = (_header(request, b"x-request-id") or b"").decode("latin-1")
        known = given if 0 < len(given) <= 128 and given.isprintable() else f"req_{os.urandom(16).hex()}"
        request.scope["state"]["highrise_request_id"] = known
    return str(known)


def _header(request: AnyRequest, name: bytes) -> bytes | None:
    """The first value of a header; a tenth of the time of Litestar's table of them."""
    return next((value for key, value in request.scope["headers"] if key == name), None)


def _too_large() -> ApiError:
    return ApiError(f"The body is larger than {MAX_BODY >> 20} MiB.", status=413, code="request_too_large")


async def body_of(request: AnyRequest) -> bytes:
    """The whole body, at most `MAX_BODY` bytes; `DisconnectedError` when the client goes away while it sends."""
    if int(_header(request, b"content-length") or 0) > MAX_BODY:  # digits: the server has parsed them
        raise _too_large()
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        message: Any = await request.receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > MAX_BODY:
            raise _too_large()
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def answer(request: AnyRequest, work: Awaitable[object]) -> ASGIApp:
    """The outcome of `work` as JSON, unless the client goes away before."""
    value = await unless_disconnected(request.receive, work)
    return JsonAnswer(encode(value), headers={"x-request-id": request_id(request)})


def stream(request: AnyRequest, chunks: AsyncIterator[object], *, keep_alive: float, done: bool = True) -> ASGIApp:
    """The chunks as server-sent events, ended by `[DONE]` as OpenAI's clients expect."""
    return EventStream(_events(chunks, done), headers={"x-request-id": request_id(request)}, keep_alive=keep_alive)


def typed_stream(request: AnyRequest, events: AsyncIterator[ResponseEvent], *, keep_alive: float) -> ASGIApp:
    """Events that carry their type in their name as well, as OpenAI's clients of /v1/responses read them."""
    return EventStream(_typed(events), headers={"x-request-id": request_id(request)}, keep_alive=keep_alive)


async def _typed(events: AsyncIterator[ResponseEvent]) -> AsyncIterator[bytes]:
    try:
        async for one in events:
            yield event(encode(one), one.type)
    finally:
        await events.aclose()  # type: ignore[attr-defined]


async def _events(chunks: AsyncIterator[object], done: bool) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield event(encode(chunk))
        if done:
            yield DONE
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


def serve_routes(backend: Backend, *, keep_alive: float = 15.0) -> list[Router]:
    """Handlers of every route over `backend`; an idle stream gets a comment each `keep_alive` seconds."""

    @get("/v1/models", summary="The models that can be asked for", tags=["OpenAI"])
    async def models(request: AnyRequest) -> ASGIApp:
        return await answer(request, backend.models())

    @get("/v1/models/{model:path}", summary="One model", tags=["OpenAI"])
    async def model(request: AnyRequest) -> ASGIApp:
        wanted = str(request.path_params["model"]).lstrip("/")
        return await answer(request, backend.model(wanted))

    @post(
        "/v1/completions",
        summary="Continue a prompt; with `suffix`, fill the middle",
        tags=["OpenAI"],
        operation_class=operation_with_body(CompletionRequest),
    )
    async def completions(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), CompletionRequest)
        if wanted.stream:
            return stream(request, await backend.stream_complete(wanted), keep_alive=keep_alive)
        return await answer(request, backend.complete(wanted))

    @post(
        "/v1/chat/completions",
        summary="Answer a conversation",
        tags=["OpenAI"],
        operation_class=operation_with_body(ChatRequest),
    )
    async def chat(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), ChatRequest)
        if wanted.stream:
            return stream(request, await backend.stream_chat(wanted), keep_alive=keep_alive)
        return await answer(request, backend.chat(wanted))

    @post(
        "/v1/responses",
        summary="Answer a conversation, in OpenAI's newer form",
        tags=["OpenAI"],
        operation_class=operation_with_body(ResponseRequest),
    )
    async def responses(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), ResponseRequest)
        asked = chat_of(wanted)
        try:
            if wanted.stream:
                chunks = await backend.stream_chat(asked)
                return typed_stream(request, response_events(wanted, chunks, backend.name), keep_alive=keep_alive)
            return await answer(request, _response(wanted, backend.chat(asked)))
        except ApiError as error:
            raise error.renamed(CHAT_NAMES) from error

    @post(
        "/v1/embeddings",
        summary="Texts as vectors",
        tags=["OpenAI"],
        operation_class=operation_with_body(EmbeddingRequest),
    )
    async def embeddings(request: AnyRequest) -> ASGIApp:
        return await answer(request, backend.embed(decode(await body_of(request), EmbeddingRequest)))

    @post(
        ["/v1/rerank", "/rerank", "/v2/rerank"],
        summary="Documents by how well they fit a query",
        tags=["embeddings"],
        operation_class=operation_with_body(RerankRequest),
    )
    async def ranked(request: AnyRequest) -> ASGIApp:
        return await answer(request, rerank(decode(await body_of(request), RerankRequest), backend))

    @post(
        ["/v1/score", "/score"],
        summary="How near pairs of texts are",
        tags=["embeddings"],
        operation_class=operation_with_body(ScoreRequest),
    )
    async def scored(request: AnyRequest) -> ASGIApp:
        return await answer(request, score(decode(await body_of(request), ScoreRequest), backend))

    @post(
        "/infill",
        summary="Fill a middle, as llama.cpp's editors ask for it",
        tags=["llama.cpp"],
        operation_class=operation_with_body(InfillRequest),
    )
    async def infill(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), InfillRequest)
        if wanted.stream:
            return stream(request, await backend.stream_infill(wanted), keep_alive=keep_alive, done=False)
        if (wanted.n_cmpl or 1) > 1:
            return await answer(request, backend.infill(wanted))
        return await answer(request, _first(backend.infill(wanted)))

    @post(
        "/tokenize",
        summary="Text as token ids",
        tags=["tokens"],
        operation_class=operation_with_body(TokenizeRequest),
    )
    async def tokenize(request: AnyRequest) -> ASGIApp:
        return await answer(request, backend.tokenize(decode(await body_of(request), TokenizeRequest)))

    @post(
        "/detokenize",
        summary="Token ids as text",
        tags=["tokens"],
        operation_class=operation_with_body(DetokenizeRequest),
    )
    async def detokenize(request: AnyRequest) -> ASGIApp:
        return await answer(request, backend.detokenize(decode(await body_of(request), DetokenizeRequest)))

    @get(ALIVE, summary="Whether the server runs", tags=["operation"])
    async def livez() -> ASGIApp:
        return JsonAnswer(b'{"status":"ok"}')

    @get([*READY], summary="Whether requests can be answered", tags=["operation"])
    async def healthz() -> ASGIApp:
        await backend.health()
        return JsonAnswer(b'{"status":"ok"}')

    @get("/metrics", summary="Counters for Prometheus, under vLLM's names", tags=["operation"])
    async def metrics() -> ASGIApp:
        return JsonAnswer(backend.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [
        Router(
            path="/",
            route_handlers=[
                models,
                model,
                completions,
                chat,
                responses,
                embeddings,
                ranked,
                scored,
                infill,
                tokenize,
                detokenize,
                livez,
                healthz,
                metrics,
            ],
            exception_handlers=error_handlers(),
        )
    ]


async def _response(wanted: ResponseRequest, chat: Awaitable[Chat]) -> ResponseAnswer:
    return complete(wanted, await chat)


async def _first(work: Awaitable[list[Any]]) -> object:
    return (await work)[0]


def serve_app(backend: Backend, *, keep_alive: float = 15.0, more: Sequence[Router] = ()) -> Litestar:
    """The application of floor 6 alone: the routes, `more` of them, and their page of documentation at /docs."""
    return Litestar(
        route_handlers=[*serve_routes(backend, keep_alive=keep_alive), *more, openapi_json],
        exception_handlers=error_handlers(),
        openapi_config=openapi_config("Highrise: a model over the OpenAI protocol"),
        on_shutdown=[backend.close],
        logging_config=None,
    )


def error_handlers() -> ExceptionHandlersMap:
    """Every error in OpenAI's shape; an application hands them to Litestar for routes that do not exist, too."""
    return {
        HTTPException: _http_error,
        DisconnectedError: _gone,
        ApiError: _error,
        HighriseError: _error,
        Exception: _error,
    }


def _error(request: AnyRequest, error: Exception) -> Response[bytes]:
    return _refuse(request, explain(error))


def _http_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    where = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        refusal = ApiError(f"There is no route {where}; /docs lists what there is.", status=404, code="not_found")
    elif error.status_code == 405:
        refusal = ApiError(f"{where} is not possible: another method is.", status=405, code="method_not_allowed")
    elif error.status_code >= 500:
        refusal = explain(error)
    else:
        refusal = ApiError(f"The request cannot be understood: {error.detail}.", status=error.status_code)
    return _refuse(request, refusal)


def _gone(request: AnyRequest, error: Exception) -> Response[bytes]:
    return Response(b"", status_code=499)


def _refuse(request: AnyRequest, error: ApiError) -> Response[bytes]:
    headers = {**error.headers, "x-request-id": request_id(request)}
    return Response(error.body(), status_code=error.status, media_type="application/json", headers=headers)
