"""Several models in one server: a request's `model` picks, unknown ones are 404, one page of metrics tells of all."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from highrise.core.errors import ConfigError
from highrise.serve.cli import open_backend
from highrise.serve.config import ServeConfig
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.http_adapters import adapter_routes
from highrise.serve.loader import plan_memory
from highrise.serve.metrics import MetricsPage
from highrise.serve.runner import EngineRunner
from highrise.serve.several import SeveralBackends
from tests.reference.paged_decoder import TINY
from tests.serve.listening import HTTP, listening
from tests.serve.tiny_backend import tiny_model


@pytest.fixture
def backends() -> Iterator[SeveralBackends]:
    page = MetricsPage()
    opened = []
    for index, name in enumerate(("first", "second")):
        engine = tiny_model(max_context=120 - 40 * index)
        opened.append(EngineBackend(engine, EngineRunner(engine), name=name, page=page, is_first=index == 0))
    yield SeveralBackends(opened)
    for one in opened:
        one.runner.close()


def test_the_model_picks_on_every_route(backends: SeveralBackends) -> None:
    with listening(serve_app(backends, more=adapter_routes(backends))) as url:
        listed = HTTP.get(f"{url}/v1/models").json()["data"]
        assert [(one["id"], one["max_model_len"]) for one in listed] == [("first", 120), ("second", 80)]
        assert HTTP.get(f"{url}/v1/models/second").json()["max_model_len"] == 80
        for wanted, answered in (("first", "first"), ("second", "second"), ("", "first")):
            for path, body in (
                ("/v1/completions", {"prompt": "Hi", "max_tokens": 3}),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}),
                ("/v1/embeddings", {"input": "Hi"}),
                ("/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 3}),
                ("/tokenize", {"prompt": "Hi"}),
                ("/detokenize", {"tokens": [40, 41]}),
            ):
                answer = HTTP.post(f"{url}{path}", json={**body, "model": wanted})
                assert answer.status_code == 200, (path, answer.text)
                assert answer.json().get("model", answered) == answered
        for path in ("/v1/completions", "/v1/chat/completions"):
            body = {"prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "stream": True}
            text = HTTP.post(f"{url}{path}", json={**body, "model": "second"}).text
            assert '"model":"second"' in text and text.endswith("data: [DONE]\n\n")
        long = {"prompt": "x" * 90, "max_tokens": 1}
        assert HTTP.post(f"{url}/v1/completions", json={**long, "model": "first"}).status_code == 200
        assert HTTP.post(f"{url}/v1/completions", json={**long, "model": "second"}).status_code == 400


def test_an_unknown_model_is_404_and_the_known_ones_are_named(backends: SeveralBackends) -> None:
    with listening(serve_app(backends)) as url:
        for path, body in (("/v1/completions", {"prompt": "a"}), ("/tokenize", {"prompt": "a"})):
            answer = HTTP.post(f"{url}{path}", json={**body, "model": "third"})
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert error["code"] == "model_not_found" and "'first', 'second'" in error["message"]
        assert HTTP.get(f"{url}/v1/models/third").status_code == 404


def test_one_page_of_metrics_and_health_of_all(backends: SeveralBackends) -> None:
    with listening(serve_app(backends)) as url:
        body = {"prompt": "Hi", "max_tokens": 3, "ignore_eos": True, "model": "second"}
        assert HTTP.post(f"{url}/v1/completions", json=body).status_code == 200
        page = HTTP.get(f"{url}/metrics").text
        assert page.count("# TYPE vllm:num_requests_running gauge") == 1
        for name, tokens in (("first", 0), ("second", 3)):
            assert re.search(rf'vllm:generation_tokens_total{{model_name="{name}"}} {tokens}\.0', page)
            assert re.search(rf'highrise:engine_up{{model_name="{name}"}} 1\.0', page)
        assert HTTP.get(f"{url}/healthz").status_code == 200
        backends._backends[1].runner.close()
        sick = HTTP.get(f"{url}/healthz")
        assert sick.status_code == 503 and sick.json()["error"]["message"].startswith("second: ")
        assert HTTP.post(f"{url}/v1/completions", json={"prompt": "Hi", "max_tokens": 1}).status_code == 200
        assert 'highrise:engine_up{model_name="second"} 0.0' in HTTP.get(f"{url}/metrics").text


def test_each_engine_gets_its_share() -> None:
    alone = plan_memory(TINY, threads=None, num_pages=None, max_context=None)
    share = plan_memory(TINY, threads=None, num_pages=None, max_context=None, sharers=2)
    assert share.threads == max(alone.threads // 2, 1)
    assert share.num_pages == pytest.approx(alone.num_pages / 2, rel=0.3)


@pytest.mark.parametrize("name", ["a-model", "sql"])
def test_two_of_a_name_are_refused_before_anything_is_loaded(name: str) -> None:
    config = ServeConfig(models={name: "smollm2-135m"}, lora_modules={"sql": "adapters/sql"})
    with pytest.raises(ConfigError, match=f'are called "{name}"'):
        open_backend("a-model", config)
