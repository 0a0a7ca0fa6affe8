"""/v1/responses through OpenAI's own client: text, items, streams, functions, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from highrise.serve.http import serve_app
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import ScriptedPrompts, scripted_backend
from tests.serve.test_http import CALL, say

TOOLS: Any = [
    {
        "type": "function",
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
    {"type": "web_search"},
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening(serve_app(scripted_backend(say))) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_a_text(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="scripted", input="Hi", instructions="Be short.", metadata={"a": "b"}, max_output_tokens=50
    )
    assert answer.output_text == "Hello there, wörld."
    assert answer.status == "completed" and answer.id.startswith("resp-")
    assert answer.metadata == {"a": "b"} and answer.instructions == "Be short."
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.input_tokens_details.cached_tokens == 3


def test_a_limit_leaves_it_incomplete(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="scripted", input="Hi", max_output_tokens=5)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None and answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "Hello"


def test_a_stream_is_in_openais_order(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="scripted", input="Hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "Hello there, wörld." and len(deltas) > 5
    assert [kind for kind in kinds if kind != "response.output_text.delta"] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello there, wörld."
    assert last.response.usage is not None and last.response.usage.output_tokens > 5


def test_raw_events_name_their_type(url: str) -> None:
    text = HTTP.post(f"{url}/v1/responses", json={"input": "Hi", "stream": True}).text
    first = text.split("\n\n")[0].split("\n")
    assert first[0] == "event: response.created"
    assert json.loads(first[1].removeprefix("data: "))["response"]["status"] == "in_progress"
    assert "[DONE]" not in text


def test_a_call_and_what_it_returned(client: openai.OpenAI) -> None:
    first = client.responses.create(model="scripted", input="weather in Bonn?", tools=TOOLS)
    kinds = [item.type for item in first.output]
    assert kinds == ["message", "function_call"]
    call = first.output[1]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Bonn"})
    again = client.responses.create(
        model="scripted",
        input=[
            {"role": "user", "content": "how warm?"},
            *first.output,  # type: ignore[list-item]
            {"type": "function_call_output", "call_id": call.call_id, "output": "20 degrees"},
        ],
        tools=TOOLS,
        tool_choice="none",
    )
    assert again.output_text


def input_text(text: str) -> dict[str, str]:
    return {"type": "input_text", "text": text}


def test_items_become_one_conversation() -> None:
    scripted = scripted_backend("ok")
    prompts = scripted.engine.prompts
    assert isinstance(prompts, ScriptedPrompts)
    items = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [input_text("a"), input_text("b")]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [input_text("two")]},
    ]
    with listening(serve_app(scripted)) as address:
        answer = HTTP.post(f"{address}/v1/responses", json={"input": items, "instructions": "First."})
    assert answer.status_code == 200, answer.text
    messages = prompts.seen[-1][0]
    assert [(one["role"], one["content"]) for one in messages] == [
        ("system", "First."),
        ("system", "Be kind."),
        ("user", "a\nb"),
        ("assistant", "I look."),
        ("tool", "one"),
        ("tool", "two"),
    ]
    assert [call["function"]["name"] for call in messages[3]["tool_calls"]] == ["f", "g"]


def test_a_streamed_call_through_the_clients_own_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model="scripted", input="weather in Bonn?", tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert kinds.index("response.function_call_arguments.done") < kinds.index("response.completed")
    call = final.output[-1]
    assert call.type == "function_call" and json.loads(call.arguments) == {"city": "Bonn"}
    assert CALL not in final.output_text


def test_an_error_in_mid_stream_fails_the_response() -> None:
    scripted = scripted_backend("abcdef")
    generate = scripted.runner.generate

    async def breaks(request: Any) -> Any:
        number = 0
        async for output in generate(request):
            number += 1
            if number == 3:
                raise RuntimeError("the engine fell over")
            yield output

    scripted.runner.generate = breaks  # type: ignore[method-assign]
    with listening(serve_app(scripted)) as address:
        text = HTTP.post(f"{address}/v1/responses", json={"input": "a", "stream": True}).text
    last = json.loads(text.strip().split("\n\n")[-1].split("data: ")[1])
    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed" and "fell over" not in last["response"]["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": 3}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, None),
        ({"input": "a" * 2000}, "input"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"previous_response_id": "resp-1"}, "previous_response_id"),
        ({"conversation": "conv"}, "conversation"),
        ({"background": True}, "background"),
        ({"max_output_tokens": -1}, "max_output_tokens"),
        ({"temperature": 7}, "temperature"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format"),
    ],
)
def test_what_cannot_be_is_refused_under_the_name_that_the_client_used(
    url: str, fields: dict[str, Any], param: str | None
) -> None:
    for stream in (False, True):
        answer = HTTP.post(f"{url}/v1/responses", json={"input": "Hi", "stream": stream, **fields})
        if param is None:
            assert answer.status_code == 200
            continue
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == param, answer.text
