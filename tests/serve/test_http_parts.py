"""The pieces behind the routes: tool calls in a stream, the window around a cursor, infill's ends, merged streams."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st

from highrise.encode.prompt_tools import parse_tool_calls
from highrise.serve.answers import unless_disconnected
from highrise.serve.gathered_transport import GatheredTransport
from highrise.serve.generation import merge
from highrise.serve.infill import InfillStop, fit, keep_end, keep_start
from highrise.serve.request import Output
from highrise.serve.tool_stream import ToolStream


def count(text: str) -> int:
    return len(text)


def read(pieces: list[str], **options: object) -> tuple[str, list[tuple[str, dict[str, object]]]]:
    stream = ToolStream(parse_tool_calls, **options)  # type: ignore[arg-type]
    text, calls = "", []
    for piece in pieces:
        shown, found = stream.push(piece)
        text += shown
        calls += found
    shown, found = stream.finish()
    return text + shown, [(call.name, json.loads(call.arguments_json)) for call in [*calls, *found]]


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("said", "text", "calls"),
    [
        ("plain text", "plain text", []),
        (f"Before. {CALL}", "Before. ", [("f", {"a": 1})]),
        (f"{CALL}\n{CALL}", "", [("f", {"a": 1})] * 2),
        (CALL.removesuffix("</tool_call>"), "", [("f", {"a": 1})]),
        ('{"name": "f", "arguments": {"a": 1}}', "", [("f", {"a": 1})]),
        ('```json\n{"name": "f", "arguments": {"a": 1}}\n```', "", [("f", {"a": 1})]),
        ("{not a call}", "{not a call}", []),
        ("a < b and <tool_box>", "a < b and <tool_box>", []),
        ("<tool_call>broken", "<tool_call>broken", []),
        ("   ", "", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_calls_are_told_from_text(said: str, text: str, calls: list[tuple[str, dict[str, object]]], size: int) -> None:
    assert read([said[start : start + size] for start in range(0, len(said), size)]) == (text, calls)


def test_a_forced_call_may_miss_its_braces() -> None:
    forced = '<tool_call>\n{"name": "f", "arguments": '
    for said in ('{"a": 1}}\n</tool_call>', '{"a": 1}\n</tool_call>', '{"a": 1}', '{"a": {"b": 1'):
        text, calls = read([said], forced=forced)
        if said.endswith("1"):
            assert calls in ([("f", {"a": {"b": 1}})], [])
        else:
            assert (text, calls) == ("", [("f", {"a": 1})])


def test_only_the_first_call_when_asked() -> None:
    assert read([f"{CALL}{CALL}"], only_first=True)[1] == [("f", {"a": 1})]


@given(st.lists(st.sampled_from([CALL, "text ", "<", "<tool_", "{", "\n", "x"]), max_size=8), st.integers(1, 9))
@example(["<", CALL, "\n", "text "], 1)
@example(["\n", "<", CALL], 1)
def test_the_pieces_do_not_matter(parts: list[str], size: int) -> None:
    said = "".join(parts)
    whole = read([said])
    cut = read([said[start : start + size] for start in range(0, len(said), size)])
    assert cut[1] == whole[1]
    assert cut[0] == whole[0]


@given(st.text(alphabet="ab \n", max_size=400), st.text(alphabet="cd \n", max_size=400), st.integers(8, 200))
def test_a_window_fits_and_touches_the_cursor(prefix: str, suffix: str, budget: int) -> None:
    extra = [("one.py", "x" * 30), ("two.py", "y" * 10)]
    window = fit(prefix, suffix, extra, budget=budget, count=count)
    used = len(window.prefix) + len(window.suffix) + sum(len(name) + len(text) for name, text in window.extra)
    assert used <= budget
    assert prefix.endswith(window.prefix)
    assert suffix.startswith(window.suffix)
    assert window.truncated == (window.prefix != prefix or window.suffix != suffix or len(window.extra) < len(extra))
    if len(prefix) + len(suffix) <= budget:
        assert (window.prefix, window.suffix) == (prefix, suffix)


@given(st.text(alphabet="ab\n", max_size=200), st.integers(0, 60))
def test_kept_ends_and_starts(text: str, limit: int) -> None:
    assert text.endswith(keep_end(text, limit, count))
    assert text.startswith(keep_start(text, limit, count))
    assert len(keep_end(text, limit, count)) <= limit


def test_the_window_stands_still_while_a_line_is_typed() -> None:
    above = "".join(f"line {number}\n" for number in range(200))
    starts = {keep_end(above + "x" * typed, 600, count)[:20] for typed in range(8)}
    assert len(starts) == 1


def test_a_less_indented_line_ends_an_infill() -> None:
    for size in (1, 3, 100):
        said = "    a()\n        b()\n\ndef c():\n    d()"
        stop = InfillStop(indent=4)
        shown = ""
        for start in range(0, len(said), size):
            shown += stop.push(said[start : start + size])
            if stop.ended:
                break
        assert stop.ended == "indent"
        assert shown.rstrip("\n") == "    a()\n        b()"


def test_time_ends_an_infill_after_a_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("highrise.serve.infill.time.monotonic", lambda: now[0])
    stop = InfillStop(milliseconds=100)
    stop.push("one")
    now[0] = 1.0
    stop.push(" more")
    assert not stop.ended
    stop.push("\n")
    assert stop.ended == "limit"


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 5], [70_000, 1], [1, 70_000, 1], [40_000] * 5])
@pytest.mark.parametrize("end", ["turn", "close", "abort"])
def test_what_one_turn_writes_leaves_at_once(sizes: list[int], end: str) -> None:
    """Over a real connection: all bytes arrive in their order, and those of one turn in one write."""
    pieces = [bytes([65 + index]) * size for index, size in enumerate(sizes)]

    class Counting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            write = transport.write
            transport.write = lambda data: (writes.append(len(data)), write(data))[0]  # type: ignore[method-assign,func-returns-value]
            gathered.append(GatheredTransport(transport, asyncio.get_running_loop()))

    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        await loop.connect_accepted_socket(Counting, here)
        reader, writer = await asyncio.open_connection(sock=there)
        for piece in pieces:
            gathered[0].write(piece)
        assert gathered[0].get_write_buffer_size() >= min(sum(sizes), 1)
        if end == "turn":
            await asyncio.sleep(0)
            assert gathered[0].get_write_buffer_size() == 0 or sum(sizes) > 60_000
            gathered[0].close()
        else:
            getattr(gathered[0], end)()
        assert gathered[0].is_closing()
        data = await reader.read()
        writer.close()
        return data

    writes: list[int] = []
    gathered: list[GatheredTransport] = []
    data = asyncio.run(talk())
    if end != "abort":
        assert data == b"".join(pieces)
        assert len(writes) <= 1 + sum(sizes) // 60_000
    else:
        assert b"".join(pieces).startswith(data)


def test_a_client_that_goes_within_the_turn_is_no_fault() -> None:
    """Under uvloop, whose closed transports refuse to be written to."""
    faults: list[object] = []

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        here, there = socket.socketpair()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, here)
        gathered = GatheredTransport(transport, loop)
        gathered.write(b"an answer")
        transport.abort()
        await asyncio.sleep(0.01)
        gathered.write(b"more")
        gathered.close()
        await asyncio.sleep(0.01)
        there.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())
    assert faults == []


def test_a_client_that_goes_as_its_answer_is_ready_harms_nobody() -> None:
    """Both are due in the same turn of the loop, the client first: nothing is cancelled once the wait is over."""

    async def talk() -> list[str]:
        ready = asyncio.Event()

        async def receive() -> Any:
            await ready.wait()
            return {"type": "http.disconnect"}

        async def work() -> str:
            await asyncio.sleep(0)
            await ready.wait()
            return "an answer"

        async def request() -> list[str]:
            said = [await unless_disconnected(receive, work())]
            await asyncio.sleep(0.01)
            return [*said, "sent"]

        task = asyncio.ensure_future(request())
        await asyncio.sleep(0.01)
        ready.set()
        return await task

    assert asyncio.run(talk()) == ["an answer", "sent"]


def test_merged_streams_close_when_one_leaves() -> None:
    closed: list[int] = []

    async def source(number: int) -> AsyncGenerator[Output, None]:
        try:
            for step in range(100):
                await asyncio.sleep(0.001)
                yield Output(request_id=str(number), text=str(step))
        finally:
            closed.append(number)

    async def run() -> None:
        pieces = merge([source(0), source(1), source(2)])
        async for _ in pieces:
            break
        await pieces.aclose()

    asyncio.run(run())
    assert sorted(closed) == [0, 1, 2]
