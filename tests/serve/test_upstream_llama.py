"""llama.cpp's server behind the routes: exchanges recorded from it in every run, itself in the slow ones.

`python -m tests.serve.test_upstream_llama` records anew; it needs llama-server and the coder weights.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.serve.http import serve_app
from highrise.serve.upstream import UpstreamBackend
from tests.serve.listening import HTTP, listening
from tests.serve.llama_cpp import LlamaServer, llama_server, tool
from tests.serve.recorded import tape

FILE = Path(__file__).parents[1] / "golden" / "upstream_llama_cpp.json"
PROMPT = "def add(a, b):\n    return"
GREEDY = {"temperature": 0, "seed": 1, "max_tokens": 6}
MESSAGES = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contextlib.contextmanager
def real_server() -> Iterator[LlamaServer]:
    tool("llama-server")
    try:
        weights = locate("qwen2.5-coder-0.5b")
    except HighriseError as error:
        pytest.skip(str(error))
    with llama_server(weights, context=2048, threads=1, arguments=["--alias", "coder"]) as server:
        yield server


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def exchange(upstream: str) -> None:
    """Everything that is asked of it, and what must come of that."""
    backend = UpstreamBackend(upstream, infill="llama.cpp")
    assert (backend.name, backend.max_context) == ("coder", 2048)
    with listening(serve_app(backend)) as url:

        def post(path: str, **body: Any) -> Any:
            answer = HTTP.post(f"{url}{path}", json=body, timeout=300)
            assert answer.status_code == 200, (path, answer.text)
            return answer.text if body.get("stream") else answer.json()

        whole = post("/v1/completions", prompt=PROMPT, **GREEDY)
        (choice,) = whole["choices"]
        assert choice["text"].startswith(" a + b") and choice["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == 6
        scored = post("/v1/completions", prompt=PROMPT, logprobs=2, **GREEDY)["choices"][0]
        check_logprobs(scored["logprobs"], scored["text"])
        pieces = events(post("/v1/completions", prompt=PROMPT, stream=True, logprobs=2, **GREEDY))
        texts = [one["choices"][0]["text"] for one in pieces if one["choices"]]
        assert "".join(texts) == choice["text"]
        parts = [one["choices"][0]["logprobs"] for one in pieces if one["choices"] and one["choices"][0]["logprobs"]]
        joined = {name: [value for part in parts for value in part[name]] for name in parts[0]}
        check_logprobs(joined, choice["text"])

        chat = post("/v1/chat/completions", messages=MESSAGES, logprobs=True, top_logprobs=2, **GREEDY)["choices"][0]
        assert chat["message"]["content"].startswith("Hello")
        assert len(chat["logprobs"]["content"]) == 6 and len(chat["logprobs"]["content"][0]["top_logprobs"]) == 2
        pieces = events(post("/v1/chat/completions", messages=MESSAGES, stream=True, **GREEDY))
        said = [one["choices"][0]["delta"].get("content") or "" for one in pieces if one["choices"]]
        assert "".join(said) == chat["message"]["content"]
        schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
        wanted = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
        number = post("/v1/chat/completions", messages=MESSAGES, response_format=wanted, temperature=0, max_tokens=20)
        assert json.loads(number["choices"][0]["message"]["content"])["n"] in (1, 2)
        asked = [{"role": "user", "content": "What is the weather in Bonn?"}]
        post("/v1/chat/completions", messages=asked, tools=[TOOL], temperature=0, max_tokens=24)

        middle = {"prefix": "def add(a, b):\n    return ", "suffix": "\n\nprint(add(1, 2))\n"}
        filled = post("/v1/completions", prompt=middle["prefix"], suffix=middle["suffix"], **GREEDY)
        assert filled["choices"][0]["text"].startswith("a + b")
        answer = post(
            "/infill", input_prefix=middle["prefix"], input_suffix=middle["suffix"], n_predict=6, temperature=0
        )
        assert answer["content"].startswith("a + b") and answer["stop"] and answer["tokens_predicted"] == 6

        for body in ({"prompt": "def add"}, {"content": "def add"}):
            assert post("/tokenize", **body) == {"tokens": [750, 912], "count": 2, "max_model_len": 2048}
        assert post("/detokenize", tokens=[750, 912])["content"] == "def add"

        long = HTTP.post(f"{url}/v1/completions", json={"prompt": "x " * 3000, **GREEDY}, timeout=300)
        assert long.status_code == 400 and "context" in long.json()["error"]["message"]
        vector = HTTP.post(f"{url}/v1/embeddings", json={"input": "hi"})
        assert vector.status_code == 501 and "embeddings" in vector.json()["error"]["message"]
        assert HTTP.get(f"{url}/healthz").status_code == 200


def check_logprobs(logprobs: dict[str, list[Any]], text: str) -> None:
    """OpenAI's form: parallel lists whose tokens spell the text, each at its place."""
    assert "".join(logprobs["tokens"]) == text
    assert all(value <= 0 for value in logprobs["token_logprobs"])
    assert all(len(top) == 2 for top in logprobs["top_logprobs"])
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert text[offset : offset + len(token)] == token


def test_recorded_exchanges() -> None:
    with tape(FILE) as url:
        exchange(url)


@pytest.mark.slow
def test_the_server_itself() -> None:
    with real_server() as server:
        exchange(server.url)


if __name__ == "__main__":
    with real_server() as server, tape(FILE, record_from=server.url) as url:
        exchange(url)
