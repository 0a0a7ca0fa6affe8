"""`highrise up --check`: asks the running assistant three questions over HTTP and prints what came back, with times.

A ghost text in the middle of a function, a streamed chat answer, a search of the sources. Speaks HTTP only, with the
standard library, as a stranger's program would. Any refusal or empty answer is an error.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from highrise.core.errors import HighriseError

__all__ = ["check"]

PREFIX = "def mean(values: list[float]) -> float:\n    "
SUFFIX = "\n\n\nprint(mean([1.0, 2.0, 3.0]))\n"
QUESTION = "What does Python's functools.lru_cache do? Answer in one sentence."
QUERY = "remove a directory tree"


def _post(base: str, path: str, body: dict[str, object]) -> http.client.HTTPResponse:
    where = urlsplit(base)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=600)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status >= 300:
        raise HighriseError(f"{path} answered {answer.status}: {answer.read().decode('utf-8', 'replace')[:500]}")
    return answer


def _events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line[len(b"data: ") :])


def check(base: str, *, model: str, infill: bool = True, search: bool = True) -> None:
    """Ask the assistant at `base` (such as "http://127.0.0.1:8080"); `HighriseError` for a wrong or empty answer.

    Without `infill` the model only continues what stands before the cursor.
    """
    _check_completion(base, model, infill)
    _check_chat(base, model)
    if search:
        _check_search(base)


def _check_completion(base: str, model: str, infill: bool) -> None:
    started = time.monotonic()
    body: dict[str, object] = {"model": model, "prompt": PREFIX, "max_tokens": 48, "temperature": 0}
    if infill:
        body["suffix"] = SUFFIX
    answer = json.loads(_post(base, "/v1/completions", body).read())
    text = answer["choices"][0]["text"]
    dim, plain = ("\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n1. ghost text, {time.monotonic() - started:.2f} s\n{PREFIX}{dim}{text}{plain}{SUFFIX}")
    if not text.strip():
        raise HighriseError("the ghost text is empty")


def _check_chat(base: str, model: str) -> None:
    started = time.monotonic()
    messages = [{"role": "user", "content": QUESTION}]
    body: dict[str, object] = {"model": model, "messages": messages, "stream": True, "max_tokens": 96, "temperature": 0}
    first: float | None = None
    num_pieces = 0
    print(f"\n2. chat: {QUESTION}\n", flush=True)
    for event in _events(_post(base, "/v1/chat/completions", body)):
        if "error" in event:
            raise HighriseError(f"the chat answer broke off: {event['error']}")
        for choice in event["choices"]:
            if piece := choice["delta"].get("content"):
                first = first or time.monotonic() - started
                num_pieces += 1
                print(piece, end="", flush=True)
    if first is None:
        raise HighriseError("the chat answer is empty")
    seconds = time.monotonic() - started
    rate = (num_pieces - 1) / max(seconds - first, 1e-9)
    print(f"\n\n   first piece after {first:.2f} s, {num_pieces} pieces in {seconds:.2f} s ({rate:.0f} a second)")


def _check_search(base: str) -> None:
    started = time.monotonic()
    answer = json.loads(_post(base, "/v1/search", {"query": QUERY, "limit": 3}).read())
    print(f"\n3. search: {QUERY}, {1000 * (time.monotonic() - started):.0f} ms")
    for hit in answer["data"]:
        print(f"   {hit['score']:.3f}  {hit['path']}:{hit['start_line']}")
    if not answer["data"]:
        raise HighriseError("the search found nothing")
