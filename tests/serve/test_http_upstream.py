"""Another OpenAI-compatible server behind the routes: here a second Highrise, and servers that misbehave."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import openai
import pytest
from litestar import Litestar, get, post
from litestar.response import Response

from highrise.core.errors import InputError
from highrise.serve.http import serve_app
from highrise.serve.upstream import UpstreamBackend
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import ScriptedEmbedder, scripted_backend
from tests.serve.test_http import TOOLS, say


@pytest.fixture(scope="module")
def behind() -> Iterator[str]:
    with listening(serve_app(scripted_backend(say, embedder=ScriptedEmbedder()))) as address:
        yield address


@pytest.fixture(scope="module")
def url(behind: str) -> Iterator[str]:
    with listening(serve_app(UpstreamBackend(f"{behind}/v1"))) as address:
        yield address


def test_everything_passes_through(url: str) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    assert client.models.list().data[0].id == "scripted"
    assert client.completions.create(model="x", prompt="Hi", max_tokens=5).choices[0].text == "Hello"
    middle = client.completions.create(model="x", prompt="a", suffix="b", extra_body={"input_extra": [{"text": "t"}]})
    assert middle.choices[0].text == "return a + b"
    chunks = client.completions.create(model="x", prompt="Hi", max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello"
    with client.chat.completions.stream(
        model="x",
        messages=[{"role": "user", "content": "weather"}],
        tools=TOOLS,  # type: ignore[arg-type]
    ) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments) == {"city": "Bonn"}
    assert client.chat.completions.create(model="x", messages=[{"role": "user", "content": "Hi"}]).usage is not None
    assert len(client.embeddings.create(model="x", input="banana").data[0].embedding) == 4
    assert HTTP.post(f"{url}/tokenize", json={"prompt": "a"}).json()["count"] == 1
    assert HTTP.post(f"{url}/detokenize", json={"tokens": [97]}).json()["content"] == "a"
    assert HTTP.get(f"{url}/healthz").status_code == 200
    assert "vllm:e2e_request_latency_seconds" in HTTP.get(f"{url}/metrics").text


@pytest.mark.parametrize("way", ["suffix", "llama.cpp"])
def test_infill_by_either_way(behind: str, way: str) -> None:
    with listening(serve_app(UpstreamBackend(behind, infill=way))) as address:  # type: ignore[arg-type]
        answer = HTTP.post(f"{address}/infill", json={"input_prefix": "a", "input_suffix": "b"}).json()
        assert answer["content"] == "return a + b"
        body = {"prompt": "a", "suffix": "b", "stream": True}
        assert "return a + b" in HTTP.post(f"{address}/v1/completions", json={**body, "stream": False}).text
        assert HTTP.post(f"{address}/v1/completions", json=body).text.endswith("data: [DONE]\n\n")


def test_its_refusals_come_through(url: str) -> None:
    for stream in (False, True):
        answer = HTTP.post(f"{url}/v1/completions", json={"prompt": "a" * 2000, "stream": stream})
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_no_server_there_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        UpstreamBackend("http://127.0.0.1:9/v1")


def test_a_server_that_breaks_off() -> None:
    @get("/v1/models")
    async def models() -> dict[str, list[dict[str, str]]]:
        return {"data": [{"id": "broken"}]}

    @post("/v1/completions")
    async def completions() -> Response[bytes]:
        return Response(b"<html>no</html>", status_code=200, media_type="text/html")

    @post("/v1/chat/completions")
    async def chat() -> Response[bytes]:
        lines = b'data: {"nonsense":1}\n\n'
        return Response(lines, status_code=200, media_type="text/event-stream")

    with contextlib.ExitStack() as stack:
        broken = stack.enter_context(listening(Litestar([models, completions, chat])))
        address = stack.enter_context(listening(serve_app(UpstreamBackend(broken))))
        answer = HTTP.post(f"{address}/v1/completions", json={"prompt": "a"})
        assert answer.status_code == 502
        assert "without JSON" in answer.json()["error"]["message"]
        body = {"messages": [{"role": "user", "content": "a"}], "stream": True}
        assert '"error"' in HTTP.post(f"{address}/v1/chat/completions", json=body).text
