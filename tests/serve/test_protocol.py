"""The wire's structs: what is tolerated, what is refused, and in which words."""

from __future__ import annotations

import base64

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.serve.protocol import (
    ApiError,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatRequest,
    CompletionRequest,
    FunctionDelta,
    ToolCallDelta,
    decode,
    encode,
    encode_floats,
)


def test_unknown_fields_are_tolerated() -> None:
    request = decode(b'{"prompt":"a","model":"m","some_new_field":{"x":1}}', CompletionRequest)
    assert request.prompt == "a"


@pytest.mark.parametrize(
    ("body", "kind", "param"),
    [
        (b'{"prompt":1}', CompletionRequest, "prompt"),
        (b'{"prompt":"a","max_tokens":"5"}', CompletionRequest, "max_tokens"),
        (b'{"prompt":"a","temperature":"hot"}', CompletionRequest, "temperature"),
        (b'{"prompt":"a","stream":1}', CompletionRequest, "stream"),
        (b"{}", CompletionRequest, "prompt"),
        (b'{"messages":"hi"}', ChatRequest, "messages"),
        (b'{"messages":[{"role":"king","content":"x"}]}', ChatRequest, "messages[0].role"),
        (b'{"messages":[{"content":"x"}]}', ChatRequest, "messages[0].role"),
        (b'{"messages":[{"role":"user","content":3}]}', ChatRequest, "messages[0].content"),
        (b'{"messages":[],"tools":[{"type":"function"}]}', ChatRequest, "tools[0].function"),
    ],
)
def test_a_wrong_type_names_the_field(body: bytes, kind: type, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        decode(body, kind)
    assert caught.value.status == 400
    assert caught.value.param == param
    error = msgspec.json.decode(caught.value.body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert param in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"prompt":"\xff"}', b'{"a":' + b"[" * 100_000])
def test_malformed_json_is_a_sentence(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        decode(body, CompletionRequest)
    assert caught.value.code == "invalid_json"
    assert caught.value.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(body: bytes) -> None:
    try:
        decode(body, ChatRequest)
    except ApiError as error:
        assert error.status == 400


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_base64_vectors_are_little_endian_float32(values: list[float]) -> None:
    text = encode_floats(np.array(values, dtype=np.float32), "base64")
    assert isinstance(text, str)
    assert np.frombuffer(base64.b64decode(text), dtype="<f4").tolist() == values
    assert encode_floats(np.array(values, dtype=np.float32), "float") == values


def test_golden_chunks() -> None:
    """The bytes that clients parse; a change here is a change of the protocol."""

    def chunk(delta: ChatDelta, reason: str | None = None) -> bytes:
        choice = ChatChunkChoice(index=0, delta=delta, finish_reason=reason)
        return encode(ChatChunk(id="chatcmpl-1", created=5, model="m", choices=[choice]))

    head = b'{"id":"chatcmpl-1","created":5,"model":"m","choices":[{"index":0,"delta":'
    tail = b',"logprobs":null}],"object":"chat.completion.chunk"}'
    assert chunk(ChatDelta(role="assistant", content="")) == (
        head + b'{"role":"assistant","content":""},"finish_reason":null' + tail
    )
    assert chunk(ChatDelta(content="hé")) == head + '{"content":"hé"},"finish_reason":null'.encode() + tail
    call = ToolCallDelta(index=0, id="call_1", type="function", function=FunctionDelta(name="f", arguments=""))
    assert chunk(ChatDelta(tool_calls=[call])) == (
        head
        + b'{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""},"id":"call_1","type":"function"}]}'
        + b',"finish_reason":null'
        + tail
    )
    more = ToolCallDelta(index=0, function=FunctionDelta(arguments='{"a":1}'))
    assert chunk(ChatDelta(tool_calls=[more])) == (
        head + b'{"tool_calls":[{"index":0,"function":{"arguments":"{\\"a\\":1}"}}]},"finish_reason":null' + tail
    )
    assert chunk(ChatDelta(), "tool_calls") == head + b'{},"finish_reason":"tool_calls"' + tail
