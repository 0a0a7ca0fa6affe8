"""The assistant over a scripted engine: context, guardrails, ghost text, the loop with its tools, keys and the door."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from highrise.agent.app import build_app
from highrise.agent.config import AgentConfig
from highrise.agent.keys import KeyFile, admit
from highrise.core.config import convert
from highrise.core.errors import ConfigError, InputError
from tests.agent.test_tools import HIT, ScriptedIndex
from tests.serve.listening import HTTP, listening
from tests.serve.scripted import ScriptedEmbedder, scripted_backend

SEARCH = '<tool_call>\n{"name": "search_sources", "arguments": {"query": "answer"}}\n</tool_call>'


class OpenIndex(ScriptedIndex):
    def __len__(self) -> int:
        return len(self.hits)


def speak(prompt: str) -> str:
    if "<pre>" in prompt:
        return "return a + b\n\ndef other():\n    pass"
    if "loop forever" in prompt:
        return SEARCH
    if "use a tool" in prompt and "tool:" not in prompt:
        return f"Let me look. {SEARCH}"
    if "say something bad" in prompt:
        return "Run `rm -rf /` to clean up your disk, it is quick."
    return "It is `42`."


Asking = Callable[..., httpx.Response]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("def answer():\n    return 42\n")
    return tmp_path


@pytest.fixture
def served(root: Path) -> Iterator[tuple[str, Any, OpenIndex]]:
    backend = scripted_backend(speak, max_context=8000)
    index = OpenIndex(HIT)
    app = build_app(AgentConfig(), backend, index=index, root=root, embedder=ScriptedEmbedder())  # type: ignore[arg-type]
    with listening(app) as url:
        yield url, backend, index


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for block in response.text.split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
    return found


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_search(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    answer = HTTP.post(f"{url}/v1/search", json={"query": "answer", "limit": 3}).json()
    assert answer["data"][0]["path"] == "src/app.py"
    assert answer["data"][0]["start_line"] == 3
    for body, param in (({"query": " "}, "query"), ({"query": "a", "limit": 0}, "limit"), ({"query": 1}, "query")):
        refused = HTTP.post(f"{url}/v1/search", json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_chat_gets_pieces_of_the_sources(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, index = served
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    answer = client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "What does the answer function return?"}]
    )
    assert answer.choices[0].message.content == "It is `42`."
    prompt = backend.engine.prompts.seen[-1][0][-1]["content"]
    assert "src/app.py:3-5" in prompt
    assert prompt.endswith("What does the answer function return?")
    seen = len(index.asked)
    for text, extra in (("hi", {}), ("What does the answer function return?", {"use_context": False})):
        HTTP.post(f"{url}/v1/chat/completions", json={"messages": user(text), **extra})
        assert backend.engine.prompts.seen[-1][0][-1]["content"] == text
    assert len(index.asked) == seen


def test_embeddings_come_from_the_given_embedder(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    answer = HTTP.post(f"{url}/v1/embeddings", json={"input": "banana", "model": "scripted-embedder"}).json()
    assert len(answer["data"][0]["embedding"]) == 4


def test_ghost_text_is_woven_cut_and_ends_early(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, _ = served
    prefix = "import os\nfrom app import answer\n\n\ndef add(a, b):\n    "
    body = {"prompt": prefix, "suffix": "\n", "max_tokens": 60, "path": "src/new.py"}
    answer = HTTP.post(f"{url}/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == "return a + b"
    assert answer["choices"][0]["finish_reason"] == "stop"
    seen_prefix, _, extra, path = backend.engine.prompts.seen[-1]
    assert (seen_prefix, path) == (prefix, "src/new.py")
    assert extra == (("src/app.py", HIT.text.strip("\n") + "\n"),)
    assert backend.runner.cancelled, "the engine was stopped when the block ended"
    lines = HTTP.post(f"{url}/v1/completions", json={**body, "stream": True}).text
    text = "".join(
        json.loads(line[6:])["choices"][0]["text"] for line in lines.split("\n") if line.startswith("data: {")
    )
    assert text == "return a + b"
    infill = {"input_prefix": prefix, "input_suffix": "\n", "n_predict": 60}
    assert HTTP.post(f"{url}/infill", json=infill).json()["content"] == "return a + b"
    assert answer["usage"]["completion_tokens"] > 0
    raw = HTTP.post(f"{url}/v1/completions", json={**body, "logprobs": 0}).json()
    assert "def other" in raw["choices"][0]["text"]


def test_the_prompt_stays_the_same_while_a_line_is_typed(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, index = served
    above = "import os\nfrom app import answer\n\n\ndef add(a, b):\n"
    for typed in ("    r", "    re", "    ret"):
        HTTP.post(f"{url}/v1/completions", json={"prompt": above + typed, "suffix": "\n", "path": "x.py"})
    assert [query for query in index.asked if query != "warm up"] == [
        "import os\nfrom app import answer\ndef add(a, b):"
    ]
    assert len({seen[2] for seen in backend.engine.prompts.seen[-3:]}) == 1


def test_a_model_without_infill_goes_on_from_the_prefix(root: Path) -> None:
    backend = scripted_backend("return a + b\n\n\nprint(add(1, 2))\n", max_context=8000)
    backend.engine.prompts.supports_infill = False  # type: ignore[misc]
    with listening(build_app(AgentConfig(), backend, index=None, root=root)) as url:
        body = {"prompt": "def add(a, b):\n    ", "suffix": "\n\nprint(add(1, 2))\n", "max_tokens": 60}
        answer = HTTP.post(f"{url}/v1/completions", json=body).json()
    assert answer["choices"][0]["text"] == "return a + b"


def test_what_is_merely_nearest_is_left_out(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, _ = served
    body = {"prompt": "import os\nfrom math import sqrt\n\n\ndef add(a, b):\n    ", "suffix": "\n"}
    HTTP.post(f"{url}/v1/completions", json=body)
    assert backend.engine.prompts.seen[-1][2] == ()


def test_ghost_text_stays_within_its_budget(root: Path) -> None:
    backend = scripted_backend(speak, max_context=8000)
    config = AgentConfig(completion_context=200)
    with listening(build_app(config, backend, index=OpenIndex(HIT), root=root)) as url:  # type: ignore[arg-type]
        body = {"prompt": "line of code\n" * 200 + "x = ", "suffix": "\nmore code\n" * 200}
        assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
    prefix, suffix, extra, _ = backend.engine.prompts.seen[-1]
    assert prefix.endswith("x = ")
    assert len(prefix) + len(suffix) + sum(len(name) + len(text) for name, text in extra) <= 200


def test_guardrails_in_and_out(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    secret = "my key is " + "AKIA" + "QW3RT7ZXCV5BNM2K"
    refused = HTTP.post(f"{url}/v1/chat/completions", json={"messages": user(secret)})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "content_filter"
    bad = {"messages": user("say something bad")}
    answer = HTTP.post(f"{url}/v1/chat/completions", json=bad).json()["choices"][0]
    assert answer["finish_reason"] == "content_filter"
    assert "Refused by the guardrail" in answer["message"]["content"]
    stream = HTTP.post(f"{url}/v1/chat/completions", json={**bad, "stream": True}).text
    assert "Refused by the guardrail" in stream
    assert "rm -rf /`" not in stream


def test_guardrails_can_be_switched_off(root: Path) -> None:
    app = build_app(AgentConfig(guard=False), scripted_backend(speak), index=None, root=root)
    with listening(app) as url:
        answer = HTTP.post(f"{url}/v1/chat/completions", json={"messages": user("say something bad")}).json()
        assert "rm -rf" in answer["choices"][0]["message"]["content"]


def test_the_loop_uses_a_tool_and_answers(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, _ = served
    events = events_of(HTTP.post(f"{url}/v1/agent", json={"messages": user("use a tool to find the answer function")}))
    kinds = [one["type"] for one in events if one["type"] != "text"]
    assert kinds == ["sources", "step", "tool_call", "tool_result", "step", "done"]
    call = next(one for one in events if one["type"] == "tool_call")
    assert (call["name"], json.loads(call["arguments"])) == ("search_sources", {"query": "answer"})
    result = next(one for one in events if one["type"] == "tool_result")
    assert result["ok"]
    assert "src/app.py:3-5" in result["text"]
    second = [one["text"] for one in events if one["type"] == "text" and one["step"] == 2]
    assert "".join(second) == "It is `42`."
    assert events[-1]["reason"] == "stop"
    messages = backend.engine.prompts.seen[-1][0]
    assert messages[0]["role"] == "system"
    assert messages[-1]["role"] == "tool"


def test_the_loop_ends_after_its_steps(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    body = {"messages": user("loop forever please"), "max_steps": 2, "use_context": False}
    events = events_of(HTTP.post(f"{url}/v1/agent", json=body))
    assert [one["type"] for one in events].count("tool_result") == 2
    assert (events[-1]["type"], events[-1]["reason"]) == ("done", "steps")


def test_without_tools_it_answers_at_once(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, _ = served
    events = events_of(HTTP.post(f"{url}/v1/agent", json={"messages": user("hi"), "use_tools": False}))
    assert {one["type"] for one in events} == {"step", "text", "done"}
    assert backend.engine.prompts.seen[-1][1] is None


def test_the_agents_bad_input(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    assert HTTP.post(f"{url}/v1/agent", json={"messages": []}).status_code == 400
    assert HTTP.post(f"{url}/v1/agent", content="{").json()["error"]["code"] == "invalid_json"
    too_long = HTTP.post(f"{url}/v1/agent", json={"messages": user("word " * 4000)})
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "context_length_exceeded")
    for name, value in (("max_steps", 0), ("max_tokens", -2), ("temperature", -5), ("top_p", 2)):
        answer = HTTP.post(f"{url}/v1/agent", json={"messages": user("hi"), name: value})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert HTTP.post(f"{url}/v1/agent", json={"messages": user("hi"), "model": "other"}).status_code == 404


def test_page_and_facts(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    home = HTTP.get(url)
    assert "default-src 'none'" in home.headers["content-security-policy"]
    for file in ("page.css", "page.js"):
        page = HTTP.get(f"{url}/page/{file}")
        assert page.status_code == 200
        assert "://" not in page.text.replace("http://", "").replace("https?:", "") or file == "page.js"
    assert HTTP.get(f"{url}/page/app.py").status_code == 404
    facts = HTTP.get(f"{url}/v1/assistant").json()
    assert facts["tools"] == ["search_sources", "read_file", "run_command"]
    assert facts["chunks"] == 1
    assert "/v1/agent" in HTTP.get(f"{url}/docs").text


def test_completion_can_be_switched_off(root: Path) -> None:
    app = build_app(AgentConfig(completion=False), scripted_backend(speak), index=None, root=root)
    with listening(app) as url:
        assert HTTP.post(f"{url}/v1/completions", json={"prompt": "a", "suffix": "b"}).status_code == 403
        assert HTTP.post(f"{url}/infill", json={"input_prefix": "a", "input_suffix": "b"}).status_code == 403
        assert HTTP.post(f"{url}/v1/search", json={"query": "a"}).json()["error"]["code"] == "no_index"


# ------------------------------------------------------------------------------------------------------------ the door


def test_keys_are_kept_by_hash_and_can_be_revoked(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secret = keys.create("ada")
    text = keys.path.read_text()
    assert secret not in text
    assert keys.path.stat().st_mode & 0o077 == 0
    owner = keys.owner(secret)
    assert owner is not None
    assert owner.name == "ada"
    other = KeyFile(keys.path)
    other.revoke("ada")
    assert keys.owner(secret) is None, "a change by another process is seen"
    with pytest.raises(InputError, match="no key has the id or name 'ada'"):
        keys.revoke("ada")
    with pytest.raises(InputError, match="needs a name"):
        keys.create("")


def test_always_asks_for_a_key(root: Path) -> None:
    secret = KeyFile(root / ".highrise" / "keys.json").create("ada")
    with listening(build_app(AgentConfig(keys="always"), scripted_backend(speak), index=None, root=root)) as url:
        assert HTTP.get(f"{url}/healthz").status_code == 200
        assert HTTP.get(url).status_code == 200
        refused = HTTP.get(f"{url}/v1/models")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert HTTP.get(f"{url}/v1/models", headers={"api-key": "hr-wrong"}).status_code == 401
        assert HTTP.get(f"{url}/v1/models", headers={"api-key": secret}).status_code == 200
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=secret)
        assert client.models.list().data[0].id == "scripted"
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{url}/v1", api_key="x").models.list()


@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [
        ({"host": "127.0.0.1:8080"}, "127.0.0.1", None),
        ({"host": "localhost:8080"}, "::1", None),
        ({"host": "[::1]:8080"}, "::1", None),
        ({"host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080"}, "127.0.0.1", None),
        ({"host": "127.0.0.1:8080", "origin": "http://evil.example"}, "127.0.0.1", 403),
        ({"host": "127.0.0.1:8080", "origin": "null"}, "127.0.0.1", 403),
        ({"host": "evil.example:8080"}, "127.0.0.1", 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, "127.0.0.1", 403),
        ({"host": "box:8080"}, "10.0.0.7", 401),
        ({"host": "localhost", "x-forwarded-for": "10.0.0.7"}, "127.0.0.1", 401),
        ({"host": "localhost"}, None, 401),
    ],
)
def test_who_needs_no_key(tmp_path: Path, headers: dict[str, str], client: str | None, status: int | None) -> None:
    refused = admit(headers, client, KeyFile(tmp_path / "keys.json"), "auto")
    assert (None if refused is None else refused.status) == status
    if status == 401:
        assert refused is not None
        assert "highrise agent key create" in refused.message


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"tools": ["search", "shell"]}, "tools"),
        ({"tools": ["search", "search"]}, "twice"),
        ({"max_steps": 0}, "max_steps"),
        ({"completion_context": 10}, "at least 64"),
        ({"command_timeout": "soon"}, "command_timeout"),
        ({"colour": "red"}, "unknown field `colour`"),
        ({"chat_context": "many"}, "chat_context"),
    ],
)
def test_wrong_configuration_names_the_key(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        convert(values, AgentConfig, where="agent")


def test_a_conversation_longer_than_the_context_loses_its_oldest_turns(root: Path) -> None:
    backend = scripted_backend("Fine.", max_context=2000)
    messages = [{"role": "system", "content": "Be kind."}]
    for number in range(12):
        messages += [*user(f"question {number} " + "word " * 40), {"role": "assistant", "content": "answer " * 20}]
    messages += user("the last question")
    config = AgentConfig(tools=())
    with listening(build_app(config, backend, index=None, root=root)) as url:
        events = events_of(HTTP.post(f"{url}/v1/agent", json={"messages": messages}))
    assert events[0]["type"] == "left_out" and events[0]["data"]["turns"] >= 8
    assert events[-1]["type"] == "done"
    sent = backend.engine.prompts.seen[-1][0]
    assert sent[0]["content"] == "Be kind." and sent[1]["role"] == "user"
    assert sent[-1]["content"] == "the last question"
    assert sent[1]["content"].startswith(f"question {events[0]['data']['turns']} ")


def test_long_tool_results_are_cut_before_the_question_is() -> None:
    from highrise.agent.history import fit_history
    from highrise.serve.protocol import ChatMessage

    messages = [
        ChatMessage(role="user", content="q" * 100),
        ChatMessage(role="tool", tool_call_id="1", content="x" * 5000),
        ChatMessage(role="tool", tool_call_id="2", content="y" * 3000),
    ]
    kept, turns = fit_history(messages, limit=4000, count=len)
    assert turns == 0 and kept[0] == messages[0] and kept[2] == messages[2]
    assert kept[1].content is not None and len(kept[1].content) < 500
    assert fit_history(messages, limit=10_000, count=len)[0] == messages


def test_a_fill_in_with_a_grammar_is_not_cut(served: tuple[str, Any, OpenIndex]) -> None:
    url, backend, _ = served
    body = {"prompt": "def add(a, b):\n    ", "suffix": "\n", "max_tokens": 60}
    assert HTTP.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"] == "return a + b"
    raw = HTTP.post(f"{url}/v1/completions", json={**body, "guided_regex": "return .*"}).json()
    assert raw["choices"][0]["text"].endswith("pass")
    assert backend.runner.asked[-1].grammar is not None


def test_responses_pass_the_guardrails_too(served: tuple[str, Any, OpenIndex]) -> None:
    url, _, _ = served
    refused = HTTP.post(f"{url}/v1/responses", json={"input": "my key is AKIA" + "QW3RT7ZXCV5BNM2K"})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "content_filter"
    stopped = HTTP.post(f"{url}/v1/responses", json={"input": "say something bad"}).json()
    assert stopped["status"] == "incomplete" and "rm -rf" not in json.dumps(stopped["output"])
