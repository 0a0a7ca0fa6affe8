"""Local HTTP servers that answer what the public API references of Pinecone (2025-10) and of Azure AI Search
(2024-07-01) document, and refuse what these do not: unknown fields, too many rows, too many bytes, a wrong key.

Vectors are compared one by one. `busy` holds answers to give before the next ones are real.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import numpy as np

KEY = "right-key"


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT: dict[str, Any] = {"type": "string"}
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 20000}
_IDS: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 512}}

PINECONE = {
    "/indexes": _closed(
        {
            "name": {"type": "string", "pattern": "^[a-z0-9-]{1,45}$"},
            "dimension": {"type": "integer", "minimum": 1, "maximum": 20000},
            "metric": {"enum": ["cosine", "euclidean", "dotproduct"]},
            "spec": _closed({"serverless": _closed({"cloud": _TEXT, "region": _TEXT}, "cloud", "region")}),
        },
        "name",
        "spec",
    ),
    "/vectors/upsert": _closed(
        {
            "namespace": _TEXT,
            "vectors": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1000,
                "items": _closed(
                    {
                        "id": {"type": "string", "minLength": 1, "maxLength": 512},
                        "values": _NUMBERS,
                        "metadata": {
                            "type": "object",
                            "additionalProperties": {"type": ["string", "number", "boolean"]},
                        },
                    },
                    "id",
                ),
            },
        },
        "vectors",
    ),
    "/vectors/delete": _closed({"ids": {**_IDS, "minItems": 1, "maxItems": 1000}, "namespace": _TEXT}),
    "/query": _closed(
        {
            "namespace": _TEXT,
            "topK": {"type": "integer", "minimum": 1, "maximum": 10000},
            "filter": {"type": "object"},
            "includeValues": {"type": "boolean"},
            "includeMetadata": {"type": "boolean"},
            "vector": _NUMBERS,
        },
        "topK",
    ),
    "/describe_index_stats": _closed({"filter": {"type": "object"}}),
}

_FIELD = _closed(
    {
        "name": _TEXT,
        "type": {"enum": ["Edm.String", "Edm.Boolean", "Collection(Edm.Single)"]},
        **{
            name: {"type": "boolean"}
            for name in ("key", "searchable", "filterable", "sortable", "facetable", "retrievable", "stored")
        },
        "dimensions": {"type": "integer", "minimum": 2, "maximum": 4096},
        "vectorSearchProfile": _TEXT,
    },
    "name",
    "type",
)

AZURE = {
    "index": _closed(
        {
            "name": _TEXT,
            "fields": {"type": "array", "items": _FIELD},
            "vectorSearch": _closed(
                {
                    "profiles": {"type": "array", "items": _closed({"name": _TEXT, "algorithm": _TEXT})},
                    "algorithms": {
                        "type": "array",
                        "items": _closed(
                            {
                                "name": _TEXT,
                                "kind": {"enum": ["hnsw", "exhaustiveKnn"]},
                                "hnswParameters": _closed(
                                    {"metric": {"enum": ["cosine", "dotProduct"]}, "m": {"type": "integer"}}
                                ),
                            },
                            "name",
                            "kind",
                        ),
                    },
                }
            ),
        },
        "name",
        "fields",
    ),
    "search": _closed(
        {
            "search": _TEXT,
            "select": _TEXT,
            "orderby": _TEXT,
            "filter": _TEXT,
            "top": {"type": "integer", "minimum": 0},
            "vectorQueries": {
                "type": "array",
                "items": _closed(
                    {"kind": {"const": "vector"}, "vector": _NUMBERS, "fields": _TEXT, "k": {"type": "integer"}},
                    "kind",
                    "vector",
                ),
            },
            "vectorFilterMode": {"enum": ["preFilter", "postFilter"]},
        }
    ),
    "documents": _closed(
        {
            "value": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1000,
                "items": {
                    "type": "object",
                    "required": ["id"],
                    "properties": {
                        "@search.action": {"enum": ["upload", "merge", "mergeOrUpload", "delete"]},
                        "id": {"type": "string", "pattern": "^[A-Za-z0-9_=-]{1,1024}$"},
                    },
                },
            }
        },
        "value",
    ),
}


class Service:
    """State and answers of one service; `url` is set when it runs."""

    most_bytes = 0
    refused_key: tuple[int, object] = (401, None)

    def __init__(self) -> None:
        self.url = ""
        self.rows: dict[str, dict[str, Any]] = {}
        self.busy: list[tuple[int, dict[str, str], object]] = []
        self.asked: list[str] = []
        self.bodies: list[int] = []

    def allowed(self, headers: Any) -> bool:
        raise NotImplementedError

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, object]:
        raise NotImplementedError


class Pinecone(Service):
    """Control plane and data plane at one address, as the local emulator has them."""

    most_bytes = 2 << 20
    refused_key = (401, "Unauthorized")

    def __init__(self) -> None:
        super().__init__()
        self.index: dict[str, Any] | None = None
        self.polls = 0

    def allowed(self, headers: Any) -> bool:
        return headers.get("Api-Key") == KEY and headers.get("X-Pinecone-Api-Version") == "2025-10"

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, object]:
        if path.startswith("/indexes"):
            return self._control(method, path, body)
        assert self.index is not None
        if path == "/vectors/list":
            return self._list(query)
        assert method == "POST"
        jsonschema.validate(body, PINECONE[path])
        space = body.get("namespace", "__default__")
        if path == "/vectors/upsert":
            for row in body["vectors"]:
                if len(row["values"]) != self.index["dimension"]:
                    return 400, {"code": 3, "message": "Vector dimension does not match", "details": []}
                self.rows[row["id"]] = {**row, "namespace": space}
            return 200, {"upsertedCount": len(body["vectors"])}
        if path == "/vectors/delete":
            for id in body["ids"]:
                self.rows.pop(id, None)
            return 200, {}
        if path == "/describe_index_stats":
            counts: dict[str, Any] = {}
            for row in self.rows.values():
                counts.setdefault(row["namespace"], {"vectorCount": 0})["vectorCount"] += 1
            return 200, {"namespaces": counts, "dimension": self.index["dimension"], "totalVectorCount": len(self.rows)}
        wanted = [row for row in self.rows.values() if row["namespace"] == space]
        for condition in body.get("filter", {}).get("$and", []):
            ((field, test),) = condition.items()
            ((operator, value),) = test.items()
            wanted = [
                row
                for row in wanted
                if (row["metadata"][field] in value if operator == "$in" else row["metadata"][field] == value)
            ]
        scored = sorted(((float(np.dot(body["vector"], row["values"])), row["id"]) for row in wanted), reverse=True)
        matches = [{"id": id, "score": score} for score, id in scored[: body["topK"]]]
        return 200, {"matches": matches, "namespace": space, "usage": {"readUnits": 5}}

    def _control(self, method: str, path: str, body: Any) -> tuple[int, object]:
        if method == "POST":
            jsonschema.validate(body, PINECONE["/indexes"])
            self.index = {
                **body,
                "host": urlsplit(self.url).netloc,
                "status": {"ready": False, "state": "Initializing"},
            }
            return 201, self.index
        if self.index is None or path != f"/indexes/{self.index['name']}":
            return 404, {"error": {"code": "NOT_FOUND", "message": "Resource not found"}, "status": 404}
        self.polls += 1
        return 200, {**self.index, "status": {"ready": True, "state": "Ready"}}

    def _list(self, query: dict[str, str]) -> tuple[int, object]:
        limit = int(query.get("limit", "100"))
        assert 1 <= limit <= 100
        ids = sorted(id for id, row in self.rows.items() if row["namespace"] == query["namespace"])
        if not ids:
            return 404, {"code": 5, "message": "Namespace not found", "details": []}
        start = int(query.get("paginationToken", "0"))
        page: dict[str, Any] = {
            "vectors": [{"id": id} for id in ids[start : start + limit]],
            "namespace": query["namespace"],
        }
        if start + limit < len(ids):
            page["pagination"] = {"next": str(start + limit)}
        return 200, page


class AzureSearch(Service):
    """One search service with at most one index. `refuse` gives statuses for the rows of the next requests."""

    most_bytes = 16 << 20
    refused_key = (403, None)

    def __init__(self) -> None:
        super().__init__()
        self.index: dict[str, Any] | None = None
        self.refuse: list[dict[int, int]] = []

    def allowed(self, headers: Any) -> bool:
        return bool(headers.get("api-key") == KEY)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, object]:
        assert query == {"api-version": "2024-07-01"}
        match = re.fullmatch(r"/indexes\('([a-z0-9-]+)'\)(/docs/(?:\$count|search\.post\.search|search\.index))?", path)
        assert match is not None, path
        if method == "PUT":
            jsonschema.validate(body, AZURE["index"])
            self.index = body
            return 201, body
        if self.index is None or self.index["name"] != match[1]:
            return 404, {"error": {"code": "", "message": f"No index with the name '{match[1]}' was found."}}
        if match[2] is None:
            return 200, self.index
        if match[2].endswith("$count"):
            return 200, len(self.rows)
        if match[2].endswith("index"):
            return self._change(body)
        jsonschema.validate(body, AZURE["search"])
        return 200, {"value": self._search(body)}

    def _change(self, body: Any) -> tuple[int, object]:
        jsonschema.validate(body, AZURE["documents"])
        refused = self.refuse.pop(0) if self.refuse else {}
        answers = []
        for number, row in enumerate(body["value"]):
            if number in refused:
                said = {"status": False, "errorMessage": "refused", "statusCode": refused[number]}
                answers.append({"key": row["id"], **said})
                continue
            if row["@search.action"] == "delete":
                self.rows.pop(row["id"], None)
            else:
                self.rows[row["id"]] = row
            answers.append({"key": row["id"], "status": True, "errorMessage": None, "statusCode": 200})
        return (207 if refused else 200), {"value": answers}

    def _search(self, body: Any) -> list[dict[str, Any]]:
        assert body["select"] == "id" and body["top"] <= 1000
        wanted = [row for row in self.rows.values() if _passes(row, body.get("filter", ""))]
        if body.get("orderby") == "id asc":
            return [{"@search.score": 1.0, "id": row["id"]} for row in sorted(wanted, key=lambda row: row["id"])][
                : body["top"]
            ]
        (query,) = body["vectorQueries"]
        assert query["fields"] == "vector" and ("filter" not in body or body["vectorFilterMode"] == "preFilter")
        scored = sorted(((float(np.dot(query["vector"], row["vector"])), row["id"]) for row in wanted), reverse=True)
        return [{"@search.score": score, "id": id} for score, id in scored[: query["k"]]]


def _passes(row: dict[str, Any], text: str) -> bool:
    """The few shapes of an OData filter that are asked for."""
    for part in filter(None, text.split(" and ")):
        part = part.strip("()")
        if part == "false":
            return False
        tests = []
        for one in part.split(" or "):
            field, operator, value = one.split(" ", 2)
            plain = value[1:-1].replace("''", "'") if value.startswith("'") else value == "true"
            tests.append(row[field] > plain if operator == "gt" else row[field] == plain)
        if not any(tests):
            return False
    return True


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    """Serve on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            service.asked.append(f"{self.command} {path}")
            service.bodies.append(len(content))
            headers: dict[str, str] = {}
            if not service.allowed(self.headers):
                status, body = service.refused_key
            elif service.busy:
                status, headers, body = service.busy.pop(0)
            elif len(content) > service.most_bytes:
                status, body = 413, "request body too large"
            else:
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                try:
                    status, body = service.answer(self.command, path, query, json.loads(content) if content else None)
                except (AssertionError, jsonschema.ValidationError, KeyError) as error:
                    status, body = 400, f"not as documented: {error!r}"[:300]
            data = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
