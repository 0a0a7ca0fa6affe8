"""OpenAI's own client against the real engine on smollm2: models, completions, a streamed tool call, vectors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.native import csrc
from highrise.serve.config import ServeConfig
from highrise.serve.http import serve_app
from highrise.serve.server import bind
from tests.serve.listening import HTTP, listening, served
from tests.serve.test_http import TOOLS

MODEL = "smollm2-135m"
STEADY = next(isa for isa in csrc.available_isas() if isa != "amx")
"""AMX kernels round long steps to bfloat16, so that a cached prompt may be answered with other tokens."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    try:
        locate(MODEL)
    except HighriseError as error:
        pytest.skip(str(error))
    from highrise.serve.cli import open_embedder, open_engine_backend

    try:
        locate("minilm-l6")
    except HighriseError:
        embedder = None
    else:
        embedder = open_embedder("minilm-l6")
    backend = open_engine_backend(
        MODEL, ServeConfig(weights="int4", threads=2, max_context=2048, kernels=STEADY), embedder=embedder
    )
    with listening(serve_app(backend)) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    assert "smollm2" in client.models.list().data[0].id.lower()


def test_completion_is_greedy_and_the_stream_agrees(client: openai.OpenAI) -> None:
    prompt = "def add(a, b):\n    return"
    whole = client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, temperature=0)
    assert whole.choices[0].text.lstrip().startswith("a + b")
    pieces = client.completions.create(model=MODEL, prompt=prompt, max_tokens=12, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    ids = HTTP.post(str(client.base_url).replace("/v1/", "/tokenize"), json={"prompt": prompt}).json()["tokens"]
    by_ids = client.completions.create(model=MODEL, prompt=ids, max_tokens=12, temperature=0)
    assert by_ids.choices[0].text == whole.choices[0].text


def test_an_answer_under_a_schema_and_one_that_is_none(client: openai.OpenAI) -> None:
    """The grammar goes to the engine's process and is compiled there; so does the reason why one cannot be."""
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    messages: list[Any] = [{"role": "user", "content": "A number, please."}]
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    for _ in range(2):
        answer = client.chat.completions.create(model=MODEL, messages=messages, response_format=wanted, max_tokens=30)
        assert json.loads(answer.choices[0].message.content or "")["n"] in (1, 2)
    wanted["json_schema"]["schema"] = {"type": "no such type"}
    with pytest.raises(openai.BadRequestError, match="cannot be followed"):
        client.chat.completions.create(model=MODEL, messages=messages, response_format=wanted)


def test_logprobs_and_echo(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The sun rises in the", max_tokens=1, temperature=0, logprobs=3, echo=True
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == answer.choices[0].text
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])  # type: ignore[operator]


def test_stop_and_seed(client: openai.OpenAI) -> None:
    stopped = client.completions.create(model=MODEL, prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop=[" 7"])
    assert stopped.choices[0].finish_reason == "stop"
    assert " 7" not in stopped.choices[0].text
    first, second = (
        client.completions.create(model=MODEL, prompt="Once", max_tokens=10, seed=5, temperature=1).choices[0].text
        for _ in range(2)
    )
    assert first == second


def call_weather(client: openai.OpenAI, model: str) -> tuple[str, str, str]:
    """Name, arguments and finish reason of a streamed call that the request asks for."""
    name, arguments, reason = "", "", ""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Bonn?"}],
        tools=TOOLS,  # type: ignore[arg-type]
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_tokens=60,
        stream=True,
    )
    for chunk in stream:
        reason = chunk.choices[0].finish_reason or reason
        for call in chunk.choices[0].delta.tool_calls or []:
            assert call.index == 0 and call.function is not None
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    return name, arguments, reason


def test_streamed_chat_with_a_tool_call(client: openai.OpenAI) -> None:
    name, arguments, reason = call_weather(client, MODEL)
    assert name == "weather" and arguments.startswith("{")
    assert reason in ("tool_calls", "length")  # whether so small a model closes its braces depends on the kernels
    if reason == "tool_calls":
        assert isinstance(json.loads(arguments), dict)


@pytest.mark.slow
def test_the_coder_model_makes_a_whole_call() -> None:
    from highrise.serve.cli import open_engine_backend

    try:
        backend = open_engine_backend("qwen2.5-coder-0.5b", ServeConfig(weights="int4", threads=2, max_context=2048))
    except HighriseError as error:
        pytest.skip(str(error))
    with listening(serve_app(backend)) as address:
        name, arguments, reason = call_weather(openai.OpenAI(base_url=f"{address}/v1", api_key="none"), backend.name)
    assert (name, reason) == ("weather", "tool_calls")
    assert "Bonn" in json.loads(arguments)["city"]


def test_chat_and_its_prefix_cache(client: openai.OpenAI) -> None:
    history = [{"role": "user", "content": "Name three colours of the rainbow, please, and say why you like them."}]
    first = client.chat.completions.create(model=MODEL, messages=history, max_tokens=24, temperature=0)  # type: ignore[arg-type]
    assert first.choices[0].message.content
    again = client.chat.completions.create(model=MODEL, messages=history, max_tokens=24, temperature=0)  # type: ignore[arg-type]
    assert again.choices[0].message.content == first.choices[0].message.content
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert (again.usage.prompt_tokens_details.cached_tokens or 0) > 0


def test_embeddings(client: openai.OpenAI) -> None:
    texts = ["a cat sat on the mat", "a kitten lay on a rug", "interest rates rose again"]
    vectors = [row.embedding for row in client.embeddings.create(model="minilm-l6", input=texts).data]
    if len(vectors[0]) != 384:
        pytest.skip("minilm-l6 is not in the cache")

    def cosine(first: list[float], second: list[float]) -> float:
        return sum(one * other for one, other in zip(first, second, strict=True))

    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2]) + 0.2


def test_bad_input(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt="word " * 3000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="not made to fill in"):
        client.completions.create(model=MODEL, prompt="a", suffix="b")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.completions.create(model=MODEL, prompt="a", temperature=9)


def test_a_port_in_use_ends_the_command_before_the_model_is_loaded() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "highrise.cli", "serve", MODEL, "--port", str(port)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"highrise: port {port} on 127.0.0.1 is in use; stop the program that listens there, or choose another with "
        "--port\n"
    )


def test_the_command_serves_until_it_is_interrupted(url: str) -> None:
    with served(MODEL, "--threads", "1", "--weights", "int4") as (address, server):
        assert HTTP.get(f"{address}/healthz").status_code == 200
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no-such-model"], "no-such-model"),
        ([""], "the name of a model is empty"),
        (
            ["minilm-l6"],
            "minilm-l6 is an embedder, which makes vectors; what is wanted here is a decoder, which writes text",
        ),
        (
            [MODEL, "--embedder", MODEL],
            "which writes text; what is wanted here is an embedder, which makes vectors, such as minilm-l6",
        ),
        ([MODEL, "--embedder", __file__], "test_http_engine.py is a file; an embedder is a folder with config.json"),
        ([MODEL, "--adapter", "nowhere"], "nowhere is not an adapter folder"),
        ([MODEL, "--threads", "0"], "threads"),
        ([MODEL, "--threads", "99999"], "threads is 99999; it may be at most 1024"),
        ([MODEL, "--max-waiting", "-1"], "max_waiting is -1"),
        ([MODEL, "--max-running", "0"], "max_running is 0"),
        ([MODEL, "--step-tokens", "0"], "step_tokens is 0"),
        ([MODEL, "--cache-memory", "much"], 'serve.cache_memory: cannot read "much" as a size'),
        ([MODEL, "--port", "99999"], "port is 99999"),
        ([MODEL, "--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from highrise.cli import main

    port = [] if "--port" in arguments else ["--port", "0"]
    assert main(["serve", *arguments, *port]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert error.startswith("highrise: ")


@pytest.mark.parametrize("engine", ["process", "thread"])
@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "cannot mmap an empty file"), (b"GGUF\x03", "is not a whole GGUF file"), (b"{}", "is not a GGUF file")],
    ids=["empty", "cut", "json"],
)
def test_a_file_that_holds_no_weights_is_one_sentence(
    content: bytes, word: str, engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from highrise.cli import main

    (tmp_path / "model.gguf").write_bytes(content)
    assert main(["serve", str(tmp_path / "model.gguf"), "--engine", engine, "--port", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
