"""/v1/rerank and /v1/score: the order is that of the vectors, in the forms of Jina, Cohere and vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.serve.http import serve_app
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import ScriptedEmbedder, scripted_backend
from tests.serve.tiny_backend import tiny_backend

TEXTS = ["banana", "an entirely other text of some length", "banal", "a", "bananas and ananas"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(serve_app(scripted_backend("x", embedder=ScriptedEmbedder()))) as address:
        yield address


def cosines(query: str, texts: list[str]) -> np.ndarray:
    rows = ScriptedEmbedder().embed([query, *texts])
    return rows[1:] @ rows[0]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_documents_come_best_first(url: str, path: str) -> None:
    body = {"model": "scripted-embedder", "query": "bananas", "documents": [*TEXTS[:3], {"text": TEXTS[3]}, TEXTS[4]]}
    answer = HTTP.post(f"{url}{path}", json=body).json()
    expected = cosines("bananas", TEXTS)
    assert [one["index"] for one in answer["results"]] == np.argsort(-expected, kind="stable").tolist()
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(float(expected[one["index"]]), abs=1e-5)
        assert one["document"] == {"text": TEXTS[one["index"]]}
    assert answer["model"] == "scripted-embedder" and answer["id"].startswith("rerank-")
    assert answer["usage"]["total_tokens"] == sum(map(len, ["bananas", *TEXTS]))


def test_fewer_and_without_their_text(url: str) -> None:
    body = {"query": "bananas", "documents": TEXTS, "top_n": 2, "return_documents": False}
    results = HTTP.post(f"{url}/v1/rerank", json=body).json()["results"]
    assert len(results) == 2 and all(set(one) == {"index", "relevance_score"} for one in results)
    body["top_n"] = 99
    assert len(HTTP.post(f"{url}/v1/rerank", json=body).json()["results"]) == 5


def test_equal_documents_keep_their_order(url: str) -> None:
    results = HTTP.post(f"{url}/v1/rerank", json={"query": "x", "documents": ["same"] * 4}).json()["results"]
    assert [one["index"] for one in results] == [0, 1, 2, 3]


def test_scores_of_one_against_many_and_of_pairs(url: str) -> None:
    many = HTTP.post(f"{url}/v1/score", json={"text_1": "bananas", "text_2": TEXTS}).json()
    np.testing.assert_allclose([one["score"] for one in many["data"]], cosines("bananas", TEXTS), atol=1e-5)
    pairs = HTTP.post(f"{url}/score", json={"text_1": TEXTS[:2], "text_2": TEXTS[2:4]}).json()
    expected = [cosines(one, [other])[0] for one, other in zip(TEXTS[:2], TEXTS[2:4], strict=True)]
    np.testing.assert_allclose([one["score"] for one in pairs["data"]], expected, atol=1e-5)
    single = HTTP.post(f"{url}/v1/score", json={"text_1": "a", "text_2": "a"}).json()
    assert [(one["index"], one["object"]) for one in single["data"]] == [(0, "score")]
    assert single["data"][0]["score"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["x"] * 1001}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["x", " "]}, "documents"),
        ("/v1/rerank", {"query": "", "documents": ["x"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": ["x"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": [3]}, "documents[0]"),
        ("/v1/rerank", {"documents": ["x"]}, "query"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["x", "y", "z"]}, "text_1"),
        ("/v1/score", {"text_1": "a", "text_2": []}, "text_2"),
    ],
)
def test_what_cannot_be_ranked_names_its_field(url: str, path: str, body: dict[str, Any], param: str) -> None:
    refused = HTTP.post(f"{url}{path}", json=body)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == param


def test_a_document_beyond_the_context_names_the_documents() -> None:
    backend = tiny_backend()
    try:
        with listening(serve_app(backend)) as url:
            refused = HTTP.post(f"{url}/v1/rerank", json={"query": "a", "documents": ["x" * 500]})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "documents"
    finally:
        backend.runner.close()


def test_minilm_puts_the_answer_first() -> None:
    try:
        locate("minilm-l6")
    except HighriseError as error:
        pytest.skip(str(error))
    from highrise.serve.cli import open_embedder

    documents = [
        "The mitochondrion is the part of a cell that makes energy.",
        "To sort a list in Python call sorted(values), or values.sort() to do it in place.",
        "Bread is baked from flour, water, salt and yeast.",
        "A hash table finds an entry by its key in constant time.",
    ]
    with listening(serve_app(scripted_backend("x", embedder=open_embedder("minilm-l6")))) as url:
        for query, best in (("how do I order a list of numbers in python?", 1), ("what is bread made of?", 2)):
            answer = HTTP.post(f"{url}/v1/rerank", json={"query": query, "documents": documents}).json()
            assert answer["results"][0]["index"] == best
