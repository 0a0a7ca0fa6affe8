"""The routes over a scripted engine: OpenAI's own client, raw HTTP, bad input, disconnects, the queue."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from highrise.core.errors import InputError
from highrise.serve.http import serve_app
from highrise.serve.scheduler import QueueFullError
from highrise.serve.server import bind
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import EOS, ScriptedEmbedder, scripted_backend

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bonn"}}\n</tool_call>'


def say(prompt: str) -> str:
    if "weather" in prompt:
        return f"I will look. {CALL}"
    if prompt.startswith("<pre>") or "<pre>" in prompt:
        return "return a + b"
    return "Hello there, wörld."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(serve_app(scripted_backend(say, embedder=ScriptedEmbedder()))) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["scripted", "scripted-embedder"]
    assert client.models.retrieve("scripted").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_every_name_that_requests_may_use_can_be_retrieved() -> None:
    backend = scripted_backend("x", embedder=ScriptedEmbedder(), aliases=("coder", "org/coder"))
    with listening(serve_app(backend)) as address:
        for name in ("scripted", "coder", "org/coder", "scripted-embedder"):
            answer = HTTP.get(f"{address}/v1/models/{name}")
            assert answer.status_code == 200, answer.text
            assert answer.json()["id"] == name
            assert answer.json()["root"] == ("scripted-embedder" if "embedder" in name else "scripted")
        assert HTTP.get(f"{address}/v1/models/").status_code == 200
        refused = HTTP.get(f"{address}/v1/models/gpt-9").json()["error"]
    assert refused["code"] == "model_not_found"


def test_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt="Hi", max_tokens=50)
    assert answer.choices[0].text == "Hello there, wörld."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2
    assert answer.usage.total_tokens == 2 + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3


def test_completion_default_is_sixteen_tokens(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="scripted", prompt="Hi")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


def test_prompts_in_four_forms(client: openai.OpenAI) -> None:
    for prompt in ("Hi", ["Hi"], [72, 105], [[72, 105]]):
        assert client.completions.create(model="scripted", prompt=prompt, max_tokens=5).choices[0].text == "Hello"
    both = client.completions.create(model="scripted", prompt=["Hi", "Ho"], n=2, max_tokens=5)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.usage is not None
    assert (both.usage.prompt_tokens, both.usage.completion_tokens) == (4, 20)


def test_stop_and_echo_and_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="scripted", prompt="Hi", max_tokens=50, stop=[" there"], echo=True, logprobs=2
    )
    assert answer.choices[0].text == "HiHello"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == list("HiHello")
    assert logprobs.token_logprobs == [None, -1.0] + [-0.5] * 5
    assert logprobs.text_offset == list(range(7))
    assert logprobs.top_logprobs[2] == {"H": -0.5, "A": -1.5}


def test_streamed_completion_with_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="scripted", prompt="Hi", max_tokens=50, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Hello there, wörld."
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 2
    assert len({chunk.id for chunk in chunks}) == 1
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"


def test_fill_in_the_middle(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="scripted", prompt="def add(a, b):\n    ", suffix="\n\nprint(add(1, 2))", max_tokens=30
    )
    assert answer.choices[0].text == "return a + b"


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        logprobs=True,
        top_logprobs=1,
    )
    choice = answer.choices[0]
    assert choice.message.content == "Hello there, wörld."
    assert choice.message.role == "assistant"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert choice.logprobs.content[0].token == "H"
    assert choice.logprobs.content[0].top_logprobs[0].logprob == -0.5


def test_streamed_chat_with_a_tool_call(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "What is the weather in Bonn?"}],
        tools=TOOLS,  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    text, name, arguments, reason, ids, usage = "", "", "", None, set(), None
    first = True
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if first:
                assert choice.delta.role == "assistant"
                first = False
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                assert call.index == 0
                if call.id:
                    ids.add(call.id)
                assert call.function is not None
                name += call.function.name or ""
                arguments += call.function.arguments or ""
    assert text.strip() == "I will look."
    assert (name, json.loads(arguments), reason) == ("weather", {"city": "Bonn"}, "tool_calls")
    assert len(ids) == 1
    assert usage is not None


def test_the_clients_own_stream_helper_reads_the_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="scripted",
        messages=[{"role": "user", "content": "weather?"}],
        tools=TOOLS,  # type: ignore[arg-type]
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls is not None
    assert final.choices[0].message.tool_calls[0].function.name == "weather"


def test_tool_call_not_streamed_and_tool_results_go_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "weather"}],
        tools=TOOLS,  # type: ignore[arg-type]
    )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert answer.choices[0].finish_reason == "tool_calls"
    again = client.chat.completions.create(
        model="scripted",
        messages=[
            {"role": "user", "content": "how warm?"},
            answer.choices[0].message,  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": calls[0].id, "content": "20 degrees"},
        ],
    )
    assert again.choices[0].message.content is not None


def test_a_forced_call(client: openai.OpenAI, url: str) -> None:
    backend = scripted_backend('{"city": "Rome"}\n</tool_call>')
    with listening(serve_app(backend)) as address:
        own = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        answer = own.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "Rome?"}],
            tools=TOOLS,  # type: ignore[arg-type]
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert json.loads(calls[0].function.arguments) == {"city": "Rome"}  # type: ignore[union-attr]
    with pytest.raises(openai.BadRequestError, match="not among the tools"):
        client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "Rome?"}],
            tools=TOOLS,  # type: ignore[arg-type]
            tool_choice={"type": "function", "function": {"name": "other"}},
        )


def test_embeddings_in_both_forms(client: openai.OpenAI) -> None:
    vectors = client.embeddings.create(model="scripted-embedder", input=["banana", "fig"]).data
    assert len(vectors) == 2
    assert abs(sum(value * value for value in vectors[0].embedding) - 1) < 1e-5
    floats = client.embeddings.create(model="scripted-embedder", input="banana", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(vectors[0].embedding)
    assert len(client.embeddings.create(model="x", input=[[1, 2], [3]], dimensions=2).data[0].embedding) == 2
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="x", input="a", dimensions=5)


def test_without_an_embedder_the_decoder_itself_embeds() -> None:
    with listening(serve_app(scripted_backend("x"))) as address:
        answer = HTTP.post(f"{address}/v1/embeddings", json={"input": ["abc", [1, 2]], "model": "scripted"}).json()
        assert [row["embedding"] for row in answer["data"]] == [[3.0, 1.0], [2.0, 1.0]]
        assert answer["usage"]["prompt_tokens"] == 5
        refused = HTTP.post(f"{address}/v1/embeddings", json={"input": "a", "model": "text-embedding-3"})
    assert refused.status_code == 404


def test_infill_as_llama_cpp(url: str) -> None:
    body = {"input_prefix": "def add(a, b):\n", "input_suffix": "\n", "prompt": "    ", "n_predict": 64}
    answer = HTTP.post(f"{url}/infill", json=body).json()
    assert answer["content"] == "return a + b"
    assert answer["stop"] is True
    assert answer["generation_settings"]["n_ctx"] == 1000
    assert answer["timings"]["predicted_n"] > 0
    several = HTTP.post(f"{url}/infill", json={**body, "n_cmpl": 2}).json()
    assert [one["content"] for one in several] == ["return a + b"] * 2
    lines = [line for line in HTTP.post(f"{url}/infill", json={**body, "stream": True}).text.split("\n\n") if line]
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert "".join(piece["content"] for piece in pieces) == "return a + b"
    assert [piece["stop"] for piece in pieces].count(True) == 1


def test_tokens_there_and_back(url: str) -> None:
    tokens = HTTP.post(f"{url}/tokenize", json={"prompt": "hé", "return_token_strs": True}).json()
    assert tokens["tokens"] == list("hé".encode())
    assert tokens["count"] == 3
    assert HTTP.post(f"{url}/tokenize", json={"content": "a"}).json()["tokens"] == [97]
    assert HTTP.post(f"{url}/detokenize", json={"tokens": [104, 105]}).json() == {"prompt": "hi", "content": "hi"}


def test_operation_routes(url: str) -> None:
    assert HTTP.get(f"{url}/healthz").json() == {"status": "ok"}
    page = HTTP.get(f"{url}/metrics").text
    for name in ("num_requests_running", "time_to_first_token_seconds_bucket", "generation_tokens_total"):
        assert f"vllm:{name}" in page
    assert 'vllm:request_success_total{finished_reason="stop",model_name="scripted"}' in page
    schema = HTTP.get(f"{url}/openapi.json").json()
    assert (
        "messages"
        in schema["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"][
            "properties"
        ]
    )
    docs = HTTP.get(f"{url}/docs").text
    assert "/v1/completions" in docs
    assert "<script" not in docs


def test_request_id_comes_back(url: str) -> None:
    assert HTTP.get(f"{url}/v1/models", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    stream = HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "stream": True})
    assert stream.headers["x-request-id"].startswith("req_")
    assert stream.headers["x-accel-buffering"] == "no"
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        ("/v1/completions", "{", 400, None, "invalid_json"),
        ("/v1/completions", {"prompt": 3}, 400, "prompt", "invalid_type"),
        ("/v1/completions", {"prompt": ""}, 400, "prompt", None),
        ("/v1/completions", {"prompt": []}, 400, "prompt", None),
        ("/v1/completions", {"prompt": [1, "a"]}, 400, "prompt", None),
        ("/v1/completions", {"prompt": [9999]}, 400, "prompt", None),
        ("/v1/completions", {"prompt": "a", "n": 0}, 400, "n", None),
        ("/v1/completions", {"prompt": "a", "temperature": 3}, 400, "temperature", None),
        ("/v1/completions", {"prompt": "a", "top_p": -1}, 400, "top_p", None),
        ("/v1/completions", {"prompt": "a", "max_tokens": -1}, 400, "max_tokens", None),
        ("/v1/completions", {"prompt": "a", "logprobs": 99}, 400, "logprobs", None),
        ("/v1/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias", None),
        ("/v1/completions", {"prompt": ["a"], "suffix": "b"}, 400, "prompt", None),
        ("/v1/completions", {"prompt": "a" * 1000}, 400, "prompt", "context_length_exceeded"),
        ("/v1/completions", {"prompt": "a" * 1000, "stream": True}, 400, "prompt", "context_length_exceeded"),
        ("/v1/completions", {"prompt": "a", "model": "gpt-9"}, 404, "model", "model_not_found"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages", None),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "yaml"}},
            400,
            "response_format",
            None,
        ),
        ("/v1/completions", {"prompt": "a", "n": 3, "best_of": 2}, 400, "best_of", None),
        ("/v1/completions", {"prompt": "a", "best_of": 3, "stream": True}, 400, "best_of", None),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "best_of": 3}, 400, "best_of", None),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2},
            400,
            "top_logprobs",
            None,
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a" * 1000}]},
            400,
            "messages",
            "context_length_exceeded",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400,
            "messages[0].content[0]",
            None,
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user"}], "tool_choice": "required"}, 400, "tool_choice", None),
        ("/v1/embeddings", {"input": {}}, 400, "input", "invalid_type"),
        ("/infill", {"input_prefix": "a"}, 400, "input_suffix", "invalid_type"),
        ("/tokenize", {}, 400, "prompt", None),
        ("/nowhere", {}, 404, None, "not_found"),
        ("/v1/models", {}, 405, None, "method_not_allowed"),
    ],
)
def test_bad_input(url: str, path: str, body: object, status: int, param: str | None, code: str | None) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    answer = HTTP.post(f"{url}{path}", content=content)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert answer.headers["x-request-id"]


def test_too_large_a_body(url: str) -> None:
    answer = HTTP.post(f"{url}/v1/completions", content=b"x" * ((32 << 20) + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_full_queue_is_429_with_retry_after() -> None:
    backend = scripted_backend("slow answer", delay=0.2, max_waiting=1)

    async def ask(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient() as client:
            body = {"prompt": "a", "max_tokens": 10}
            first = asyncio.ensure_future(client.post(f"{address}/v1/completions", json=body))
            while not backend.runner.asked:  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
            second = await client.post(f"{address}/v1/completions", json=body)
            return [await first, second]

    with listening(serve_app(backend)) as address:
        first, second = asyncio.run(ask(address))
    assert first.status_code == 200
    assert second.status_code == 429
    assert second.headers["retry-after"] == "1"
    assert second.json()["error"]["code"] == "queue_full"


def test_more_answers_than_the_queue_holds_will_never_fit_so_it_is_400() -> None:
    with listening(serve_app(scripted_backend("a", max_waiting=2))) as address:
        answer = HTTP.post(f"{address}/v1/completions", json={"prompt": ["a"] * 3, "max_tokens": 1})
    assert answer.status_code == 400
    assert "asks for 3 answers at once, the server holds at most 2" in answer.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_request(stream: bool) -> None:
    backend = scripted_backend("x" * 400, delay=0.02)
    with listening(serve_app(backend)) as address:
        host, port = address.removeprefix("http://").split(":")
        body = json.dumps({"prompt": "a", "max_tokens": 400, "stream": stream}).encode()
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
            deadline = time.monotonic() + 5
            while not backend.runner.asked and time.monotonic() < deadline:  # type: ignore[attr-defined]
                time.sleep(0.02)
            time.sleep(0.1)
            assert len(backend.runner.asked) == 1  # type: ignore[attr-defined]
            assert not backend.runner.cancelled  # type: ignore[attr-defined]
        deadline = time.monotonic() + 3
        while not backend.runner.cancelled and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.02)
        assert len(backend.runner.cancelled) == 1  # type: ignore[attr-defined]
        assert 'finished_reason="abort"' in HTTP.get(f"{address}/metrics").text


def test_an_idle_stream_is_kept_alive() -> None:
    backend = scripted_backend("ab", delay=0.4)
    with listening(serve_app(backend, keep_alive=0.1)) as address:
        text = HTTP.post(f"{address}/v1/completions", json={"prompt": "a", "stream": True}).text
    assert text.count(": keep-alive\n\n") >= 3
    assert text.endswith("data: [DONE]\n\n")


def test_an_error_in_mid_stream_is_an_event() -> None:
    backend = scripted_backend("abcdef")
    generate = backend.runner.generate

    async def breaks(request):  # type: ignore[no-untyped-def]
        async for number, output in _counted(generate(request)):
            if number == 3:
                raise RuntimeError("the engine fell over")
            yield output

    backend.runner.generate = breaks  # type: ignore[method-assign]
    with listening(serve_app(backend)) as address:
        text = HTTP.post(f"{address}/v1/completions", json={"prompt": "a", "stream": True}).text
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"
    assert "fell over" not in last["error"]["message"]


def test_an_error_before_the_first_event_has_its_own_status() -> None:
    backend = scripted_backend("ab", delay=0.05)

    async def full(request):  # type: ignore[no-untyped-def]
        raise QueueFullError("nine requests wait")
        yield

    backend.runner.generate = full  # type: ignore[method-assign]
    with listening(serve_app(backend)) as address:
        refused = HTTP.post(f"{address}/v1/completions", json={"prompt": "a", "stream": True})
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "queue_full"


async def _counted(source):  # type: ignore[no-untyped-def]
    number = 0
    async for one in source:
        yield number, one
        number += 1


def test_health_after_the_engine_stopped() -> None:
    backend = scripted_backend("x")
    backend.runner.close()
    with listening(serve_app(backend)) as address:
        assert HTTP.get(f"{address}/healthz").status_code == 503


def test_a_port_in_use_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} on 127.0.0.1 is in use"):
            bind("127.0.0.1", port)


def test_ignore_eos_and_stop_ids_reach_the_engine(url: str) -> None:
    backend = scripted_backend("abc")
    with listening(serve_app(backend)) as address:
        body = {"prompt": "a", "ignore_eos": True, "stop_token_ids": [EOS], "seed": 7, "n": 2, "top_k": -1, "top_p": 0}
        HTTP.post(f"{address}/v1/completions", json=body)
    first, second = (request.sampling for request in backend.runner.asked)  # type: ignore[attr-defined]
    assert first.ignore_eos
    assert first.stop_ids == (EOS,)
    assert (first.seed, second.seed) == (7, 8)
    assert first.top_k == 0


def test_no_torch_on_the_way() -> None:
    code = "import sys, highrise.serve.http, highrise.serve.engine_backend; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
