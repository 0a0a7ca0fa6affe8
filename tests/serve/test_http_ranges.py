"""Every field of every request, with every kind of value: an answer, or 400 in OpenAI's shape that names the field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    InfillRequest,
    ResponseRequest,
    TokenizeRequest,
    decode,
)
from tests.serve.listening import listening
from tests.serve.tiny_backend import tiny_backend

MESSAGES = [{"role": "user", "content": "Hi"}]
ROUTES: dict[str, tuple[type[msgspec.Struct], dict[str, Any]]] = {
    "/v1/completions": (CompletionRequest, {"prompt": "Hi", "max_tokens": 2}),
    "/v1/chat/completions": (ChatRequest, {"messages": MESSAGES, "max_tokens": 2}),
    "/v1/responses": (ResponseRequest, {"input": "Hi", "max_output_tokens": 2}),
    "/v1/embeddings": (EmbeddingRequest, {"input": "Hi"}),
    "/infill": (InfillRequest, {"input_prefix": "a", "input_suffix": "b", "n_predict": 2}),
    "/tokenize": (TokenizeRequest, {"prompt": "Hi"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [1]}),
}
NUMBERS: list[Any] = [-1, 0, 10_000, 2**63, 10**400, 0.5, -1e308]
TEXTS: list[Any] = ["", "x", "\ud800", "\x00", "a" * 5000]
LISTS: list[Any] = [[], [-1], [2**40], [""], ["\udfff"], [[]], [None], [{}], ["x"] * 30]
OBJECTS: list[Any] = [{}, {"1": 1}, {"1": 1000}, {"-1": 1}, {"999999": 1}, {"\u00b2": 1}, {"type": "x"}, {"regex": "["}]
VALUES = [None, True, *NUMBERS, *TEXTS, *LISTS, *OBJECTS, {"type": "function", "function": {"name": "absent"}}]


@pytest.fixture(scope="module")
def backend() -> Iterator[EngineBackend]:
    backend = tiny_backend()
    yield backend
    backend.runner.close()


@pytest.fixture(scope="module")
def http(backend: EngineBackend) -> Iterator[httpx.Client]:
    with listening(serve_app(backend)) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def cases() -> Iterator[tuple[str, str]]:
    for route, (kind, _) in ROUTES.items():
        for field in msgspec.structs.fields(kind):
            yield route, field.encode_name


@pytest.mark.parametrize(("route", "field"), list(cases()))
def test_any_value_is_answered_or_refused_by_the_name_of_its_field(
    http: httpx.Client, backend: EngineBackend, route: str, field: str
) -> None:
    for value in VALUES:
        body = json.dumps({**ROUTES[route][1], field: value})
        answer = http.post(route, content=body, headers={"content-type": "application/json"})
        shown = f"{field} = {json.dumps(value)[:60]}: {answer.status_code} {answer.text[:300]}"
        if answer.status_code == 200:
            if not answer.headers["content-type"].startswith("text/event-stream"):
                answer.json()
            else:
                assert '"error":{' not in answer.text, shown
            continue
        assert answer.status_code == (404 if field == "model" and isinstance(value, str) else 400), shown
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error", shown
        named = "input" if field == "instructions" and error["code"] == "context_length_exceeded" else field
        assert error["code"] == "invalid_json" or (error["param"] or "").startswith(named), shown
    assert backend.runner.alive
    stats = backend.runner.stats()
    assert stats.num_free_pages == stats.num_pages


def test_the_best_of_several_answers_are_the_likeliest(http: httpx.Client) -> None:
    asked = {"prompt": ["Hi", "Ho"], "max_tokens": 8, "seed": 7, "logprobs": 0, "ignore_eos": True}

    def means(answer: httpx.Response) -> list[tuple[float, str]]:
        return [(sum(choice["logprobs"]["token_logprobs"]) / 8, choice["text"]) for choice in answer.json()["choices"]]

    every = means(http.post("/v1/completions", json={**asked, "n": 5}))
    best = means(http.post("/v1/completions", json={**asked, "n": 2, "best_of": 5}))
    assert best == sorted(every[:5], reverse=True)[:2] + sorted(every[5:], reverse=True)[:2]
    plain = http.post("/v1/completions", json={**asked, "logprobs": None, "best_of": 5}).json()
    assert [choice["text"] for choice in plain["choices"]] == [best[0][1], best[2][1]]
    assert all(choice["logprobs"] is None for choice in plain["choices"])
    assert plain["usage"]["completion_tokens"] == 80


def test_min_tokens_holds_the_end_back(http: httpx.Client) -> None:
    body = {"prompt": "Hi", "max_tokens": 30, "temperature": 2, "logit_bias": {"95": 100}}
    assert http.post("/v1/completions", json=body).json()["usage"]["completion_tokens"] == 1
    held = http.post("/v1/completions", json={**body, "min_tokens": 12}).json()
    assert held["usage"]["completion_tokens"] == 13
    assert held["choices"][0]["finish_reason"] == "stop"
    by_id = http.post("/v1/completions", json={**body, "logit_bias": {"7": 100}, "stop_token_ids": [7]}).json()
    assert by_id["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("length", [0, 1, 118, 119, 120, 121])
@pytest.mark.parametrize("route", ["/v1/completions", "/v1/embeddings", "/v1/chat/completions"])
def test_prompts_around_the_length_of_the_context(http: httpx.Client, route: str, length: int) -> None:
    """The context holds 120 tokens, one of them for the answer; the words around a chat message take 6."""
    text = "a" * length
    if route == "/v1/chat/completions":
        answer = http.post(route, json={"messages": [{"role": "user", "content": text[6:]}]})
        fits, param = length < 120, "messages"
    else:
        field = "prompt" if route == "/v1/completions" else "input"
        answer = http.post(route, json={field: text})
        fits, param = 0 < length < 120, field
    assert answer.status_code == (200 if fits else 400), answer.text
    if not fits:
        error = answer.json()["error"]
        assert error["param"] == param
        assert error["code"] == ("context_length_exceeded" if length else None)
        return
    assert answer.json()["usage"]["total_tokens"] <= 120


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"a\ud83d", "a\ufffd"),
        (r"\ude00 b", "\ufffd b"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\uD83D\uDE00", "\U0001f600"),
        (r"\\ud83d", r"\ud83d"),
        (r"\n\ud83dn", "\n\ufffdn"),
    ],
)
def test_half_a_surrogate_pair_is_a_replacement_character(text: str, read: str) -> None:
    """Editors cut texts between two UTF-16 units."""
    assert decode(b'{"prompt":"%s"}' % text.encode(), CompletionRequest).prompt == read


def test_stop_strings_of_any_characters(http: httpx.Client) -> None:
    for stop in (
        b'"\\ud800"',
        b'["\\udfff", "x"]',
        '"ü\U0001f600"'.encode(),
        b'"\\u0000"',
        b'["' + b"a" * 5000 + b'"]',
    ):
        body = b'{"prompt": "Hi", "max_tokens": 3, "stop": ' + stop + b"}"
        assert http.post("/v1/completions", content=body).status_code == 200
    for stop in (b'"\xff"', b'["\xed\xa0\x80"]'):
        refused = http.post("/v1/completions", content=b'{"prompt": "Hi", "stop": ' + stop + b"}")
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_json"
