"""Floor 6, HTTP adapters: vLLM's routes that load and drop LoRA adapters while the server runs.

Whoever may call them can make the server read any folder of its machine, so they exist only where that was asked for.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, Router, post
from litestar.types import ASGIApp

from highrise.serve.answers import JsonAnswer
from highrise.serve.backend import AdapterLoader
from highrise.serve.http import body_of, error_handlers, request_id
from highrise.serve.openapi import operation_with_body
from highrise.serve.protocol import LoadAdapterRequest, UnloadAdapterRequest, decode

__all__ = ["adapter_routes"]

AnyRequest = Request[Any, Any, Any]


def adapter_routes(loader: AdapterLoader) -> list[Router]:
    """The two routes over a backend that can do it."""

    @post(
        "/v1/load_lora_adapter",
        summary="Load a LoRA adapter from a folder of the server's machine",
        tags=["adapters"],
        operation_class=operation_with_body(LoadAdapterRequest),
    )
    async def load(request: AnyRequest) -> ASGIApp:
        return _told(request, await loader.load_adapter(decode(await body_of(request), LoadAdapterRequest)))

    @post(
        "/v1/unload_lora_adapter",
        summary="Drop a LoRA adapter; requests under way end with it",
        tags=["adapters"],
        operation_class=operation_with_body(UnloadAdapterRequest),
    )
    async def unload(request: AnyRequest) -> ASGIApp:
        return _told(request, await loader.unload_adapter(decode(await body_of(request), UnloadAdapterRequest)))

    return [Router(path="/", route_handlers=[load, unload], exception_handlers=error_handlers())]


def _told(request: AnyRequest, text: str) -> ASGIApp:
    return JsonAnswer(
        text.encode(), media_type="text/plain; charset=utf-8", headers={"x-request-id": request_id(request)}
    )
