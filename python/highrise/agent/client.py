"""Floor 7, client: what the terminal commands say to a running server, with the standard library alone.

Every refusal becomes one sentence. Knows nothing of terminals.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from highrise.core.errors import AgentError, InputError

__all__ = ["Client"]


class Client:
    """Speaks to the server at `url`; `key` is its API key, if it wants one."""

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 600.0) -> None:
        try:
            where = urlsplit(url if "//" in url else f"//{url}", scheme="http")
            port = where.port
        except ValueError as error:
            raise InputError(f"{url} is not the address of a server: {error}") from error
        if where.scheme not in ("http", "https") or not where.hostname:
            raise InputError(f"{url} is not the address of a server; write for example http://127.0.0.1:8080")
        self._url = url
        self._where = (where.scheme, where.hostname, port)
        self._below = where.path.rstrip("/").removesuffix("/v1")  # a proxy may hand on only what lies below a path
        self._key = key
        self._timeout = timeout

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST `body`, or GET without one; the JSON that comes back."""
        answer = self._send(path, body)
        try:
            value = json.loads(answer.read())
        except (ValueError, http.client.HTTPException, OSError) as error:
            raise AgentError(f"{self._url}{path} did not answer with JSON: {error}") from error
        return value if isinstance(value, dict) else {"data": value}

    def events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """POST `body`; each server-sent event as it comes."""
        answer = self._send(path, body)
        try:
            for line in answer:
                if line.startswith(b"data:") and (data := line[5:].strip()) != b"[DONE]":
                    yield json.loads(data)
        except (ValueError, http.client.HTTPException, OSError) as error:
            raise AgentError(f"the answer of {self._url} broke off: {error}") from error

    def _send(self, path: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        scheme, host, port = self._where
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=self._timeout)
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.request(
                "GET" if body is None else "POST",
                f"{self._below}{path}",
                None if body is None else json.dumps(body),
                headers,
            )
            answer = connection.getresponse()
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # UnicodeError: no host has such a name
            raise InputError(
                f"no server answers at {self._url} ({error}); start one with `highrise up` or `highrise serve MODEL`, "
                "or name another with --url"
            ) from error
        if answer.status == 400:
            raise InputError(_refusal(answer, f"{self._url}{path}"))
        if answer.status != 200:
            raise AgentError(_refusal(answer, f"{self._url}{path}"))
        return answer


def _refusal(answer: http.client.HTTPResponse, where: str) -> str:
    try:
        return str(json.loads(answer.read())["error"]["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError, http.client.HTTPException, OSError):
        return f"{where} answered {answer.status}"
