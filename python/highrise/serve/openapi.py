"""Floor 6, OpenAPI: the description of the routes at /openapi.json and a page of it at /docs.

The usual viewers load scripts from elsewhere; this page is one HTML text without scripts, so it works behind a closed
door. Request bodies are described by the structs that decode them. Knows nothing of what the routes do.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody

from highrise import __version__

__all__ = ["openapi_config", "openapi_json", "operation_with_body"]


def openapi_config(title: str) -> OpenAPIConfig:
    """Litestar's configuration of the description; `title` stands on the page."""
    return OpenAPIConfig(
        title=title,
        version=__version__,
        path="/docs",  # at "/" Litestar would answer every unknown path with 405
        render_plugins=[_Page(path="/"), JsonRenderPlugin(path="/openapi.json")],
    )


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def openapi_json(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The description where OpenAI-compatible servers have it."""
    return Response(msgspec.json.encode(request.app.openapi_schema.to_schema()), media_type="application/json")


def operation_with_body(kind: type[Any]) -> type[Operation]:
    """An operation whose JSON body is the struct `kind`."""
    (schema,), parts = msgspec.json.schema_components([kind], ref_template="{name}")
    body = RequestBody(content={"application/json": OpenAPIMediaType(schema=_inline(schema, parts))}, required=True)

    @dataclass
    class WithBody(Operation):
        def __post_init__(self) -> None:
            self.request_body = body

    return WithBody


def _inline(schema: Any, parts: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inline(parts[schema["$ref"]], parts)
        return {key: _inline(value, parts) for key, value in schema.items()}
    return [_inline(one, parts) for one in schema] if isinstance(schema, list) else schema


class _Page(OpenAPIRenderPlugin):
    """The description as one page of HTML."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        title = html.escape(openapi_schema["info"]["title"])
        sections: dict[str, list[str]] = {}
        for path, methods in openapi_schema["paths"].items():
            for method, operation in methods.items():
                if not isinstance(operation, dict) or "responses" not in operation:
                    continue
                tag = (operation.get("tags") or ["other"])[0]
                sections.setdefault(tag, []).append(_operation(method, path, operation))
        body = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(rows)}" for tag, rows in sections.items())
        return _PAGE.replace("{title}", title).replace("{body}", body).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    head = f"<code class='{method}'>{method.upper()}</code> <code>{html.escape(path)}</code>"
    summary = html.escape(operation.get("summary") or "")
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if not schema:
        return f"<div class=row>{head} <span>{summary}</span></div>"
    rows = "".join(
        f"<tr><td><code>{html.escape(name)}</code>{'*' if name in schema.get('required', ()) else ''}</td>"
        f"<td>{html.escape(_kind(value))}</td></tr>"
        for name, value in schema.get("properties", {}).items()
    )
    about = html.escape(schema.get("description", ""))
    head = f"<summary>{head} <span>{summary}</span></summary>"
    return f"<details class=row>{head}<p>{about}</p><table>{rows}</table></details>"


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(kind for one in schema["anyOf"] if (kind := _kind(one)) != "null")
    if "enum" in schema:
        return " | ".join(json.dumps(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("title") or schema.get("type") or "any")


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 15%,transparent)}
body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem}h2{font-size:1rem;margin-top:2rem}
code{font-family:ui-monospace,monospace}.get,.post{font-weight:700}.get{color:#2a7de1}.post{color:#1d9a5b}
.row{border:1px solid var(--line);border-radius:8px;padding:.5rem .8rem;margin:.4rem 0}summary{cursor:pointer}
.row span{opacity:.75;margin-left:.5rem}table{border-collapse:collapse;margin:.5rem 0}
td{border-top:1px solid var(--line);padding:.25rem .8rem .25rem 0;vertical-align:top}
</style><h1>{title}</h1>
<p>The machine-readable form is <a href="/openapi.json">/openapi.json</a>. * marks what is required.</p>
{body}</html>"""
