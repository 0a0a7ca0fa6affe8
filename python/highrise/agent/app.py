"""Floor 7, application: serve's routes with the assistant over them, the agent's own routes, the page, the door.

One Litestar application; the engine may live in this process or behind any OpenAI-compatible server. Knows how the
parts are put together and nothing of how they work.
"""

from __future__ import annotations

import asyncio
import importlib.resources
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import Litestar, Request, get, post
from litestar.enums import ScopeType
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from highrise import __version__
from highrise.agent.assistant_backend import AssistantBackend, Guard
from highrise.agent.config import AgentConfig
from highrise.agent.context import Context, question_of
from highrise.agent.keys import KeyFile, admit
from highrise.agent.loop import AgentEvent, AgentLoop, AgentRequest
from highrise.agent.tools import Toolbox
from highrise.serve.answers import EventStream, JsonAnswer, event, explain
from highrise.serve.backend import Backend
from highrise.serve.gate import ALIVE, READY
from highrise.serve.http import answer, body_of, error_handlers, request_id, serve_routes
from highrise.serve.openapi import openapi_config, openapi_json, operation_with_body
from highrise.serve.protocol import ApiError, decode, encode

if TYPE_CHECKING:
    from highrise.encode.index import SearchIndex
    from highrise.serve.backend import Embedder

__all__ = ["KEY_FILE", "SearchRequest", "build_app"]

KEY_FILE = Path(".highrise") / "keys.json"
"""Where the API keys of an assistant lie, below its root."""

_OPEN = frozenset(("/", ALIVE, *READY))
_PAGE_FILES = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_MAX_HITS = 50

AnyRequest = Request[Any, Any, Any]


class SearchRequest(msgspec.Struct, kw_only=True):
    """POST /v1/search: pieces of the sources, by meaning and by words."""

    query: str
    limit: int = 10
    languages: list[str] | None = None


def build_app(
    config: AgentConfig,
    backend: Backend,
    *,
    index: SearchIndex | None,
    root: Path,
    embedder: Embedder | None = None,
    name: str = "Highrise",
) -> Litestar:
    """The assistant over `backend`; `root` is the repository that its tools may touch.

    `embedder` serves /v1/embeddings when the backend has none. `name` stands on the page.
    """
    if embedder is not None and getattr(backend, "embedder", False) is None:
        backend.embedder = embedder  # type: ignore[attr-defined]
    guard = Guard(on=config.guard)
    context = Context(index, config, backend.count_tokens, screen=guard.screen)
    assistant = AssistantBackend(backend, config, context, guard)
    hidden = [root / ".highrise"]
    toolbox = Toolbox.of(config, root=root, index=index, hidden=hidden, screen=guard.screen)
    loop = AgentLoop(assistant, toolbox, context, max_steps=config.max_steps, temperature=config.temperature)
    keys = KeyFile(root / KEY_FILE)

    @post(
        "/v1/search",
        summary="Search the indexed sources",
        tags=["assistant"],
        operation_class=operation_with_body(SearchRequest),
    )
    async def search(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), SearchRequest)
        if index is None:
            raise ApiError("There is no index to search; build one with `highrise build`.", status=404, code="no_index")
        if not 1 <= wanted.limit <= _MAX_HITS:
            raise ApiError(f"'limit' is {wanted.limit}; it must lie between 1 and {_MAX_HITS}.", param="limit")
        if not wanted.query.strip():
            raise ApiError("'query' is empty; write what to look for.", param="query")
        found = asyncio.to_thread(index.search, wanted.query, limit=wanted.limit, languages=wanted.languages)
        return await answer(request, _listed(found))

    @post(
        "/v1/agent",
        summary="Answer with sources and tools, step by step, as a stream of events",
        tags=["assistant"],
        operation_class=operation_with_body(AgentRequest),
    )
    async def agent(request: AnyRequest) -> ASGIApp:
        wanted = decode(await body_of(request), AgentRequest)
        if not wanted.messages:
            raise ApiError("'messages' is empty; there is nothing to answer.", param="messages")
        if wanted.max_steps is not None and wanted.max_steps < 1:
            raise ApiError(f"'max_steps' is {wanted.max_steps}; it must be at least 1.", param="max_steps")
        guard.refuse_input(question_of(wanted.messages))
        events = loop.run(wanted)
        begun: list[AgentEvent] = []
        while not begun or begun[-1].type != "step":  # until the model took the request; a wrong one is answered 400
            begun.append(await anext(events))
        return EventStream(_agent_events(begun, events), headers={"x-request-id": request_id(request)})

    @get("/v1/assistant", summary="What this assistant is and has", tags=["assistant"])
    async def about(request: AnyRequest) -> ASGIApp:
        facts = {
            "name": name,
            "version": __version__,
            "model": backend.name,
            "context": backend.max_context,
            "tools": toolbox.names,
            "completion": config.completion,
            "chunks": 0 if index is None else len(index),
        }
        return JsonAnswer(encode(facts), headers={"x-request-id": request_id(request)})

    tasks: list[asyncio.Task[Any]] = []

    async def warm_up() -> None:
        # The first search opens vectors and embedder, which would cost the first ghost text its context.
        if index is not None and len(index):
            tasks.append(asyncio.create_task(asyncio.to_thread(index.search, "warm up", limit=1)))

    page = {file: _page_file(file) for file in ("index.html", *_PAGE_FILES)}

    @get("/", include_in_schema=False)
    async def home() -> ASGIApp:
        return JsonAnswer(page["index.html"], media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)

    @get("/page/{file:str}", include_in_schema=False)
    async def page_file(request: AnyRequest) -> ASGIApp:
        wanted = str(request.path_params["file"])
        if wanted not in _PAGE_FILES:
            raise ApiError(f"There is no page file {wanted}.", status=404, code="not_found")
        return JsonAnswer(page[wanted], media_type=_PAGE_FILES[wanted], headers=_PAGE_HEADERS)

    return Litestar(
        route_handlers=[*serve_routes(assistant), search, agent, about, home, page_file, openapi_json],
        exception_handlers=error_handlers(),
        openapi_config=openapi_config(f"{name}: the team's assistant"),
        middleware=[DefineMiddleware(_Door, keys=keys, rule=config.keys)],
        on_startup=[warm_up],
        on_shutdown=[assistant.close],
        logging_config=None,
    )


_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def _page_file(name: str) -> bytes:
    return importlib.resources.files("highrise.agent").joinpath("page", name).read_bytes()


async def _listed(found: Any) -> dict[str, object]:
    return {"object": "list", "data": await found}


async def _agent_events(
    begun: Sequence[AgentEvent], events: AsyncGenerator[AgentEvent, None]
) -> AsyncGenerator[bytes, None]:
    try:
        for one in begun:
            yield event(encode(one), one.type)
        async for one in events:
            yield event(encode(one), one.type)
    except Exception as error:
        yield event(explain(error).body(), "error")
    finally:
        await events.aclose()


class _Door:
    """Lets a request in or answers why not; the page itself and the health check stand open."""

    def __init__(self, app: ASGIApp, keys: KeyFile, rule: Any) -> None:
        self._app = app
        self._keys = keys
        self._rule = rule

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand on."""
        if scope["type"] == ScopeType.HTTP and scope["path"] not in _OPEN and not scope["path"].startswith("/page/"):
            headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
            client = scope["client"][0] if scope["client"] else None
            refused = admit(headers, client, self._keys, self._rule)
            if refused is not None:
                code = "invalid_api_key" if refused.status == 401 else "forbidden"
                error = ApiError(refused.message, status=refused.status, type="authentication_error", code=code)
                await JsonAnswer(error.body(), status=error.status)(scope, receive, send)
                return
        await self._app(scope, receive, send)
