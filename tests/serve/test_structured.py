"""Structured output: what requests may say, what the grammar lets through, and that a real model keeps to it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import numpy as np
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError, InputError
from highrise.encode import Tokenizer
from highrise.serve.adapters.llguidance import compile_grammar
from highrise.serve.constraint import Constraints, Grammar
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.grammar import grammar_of
from highrise.serve.http import serve_app
from highrise.serve.protocol import ApiError, ChatRequest, decode
from highrise.serve.request import Request, Sampling
from tests.serve.listening import HTTP, listening
from tests.serve.test_http import TOOLS
from tests.serve.test_http_engine import STEADY

MODEL = "smollm2-135m"


@pytest.fixture(scope="module")
def backend() -> Iterator[EngineBackend]:
    try:
        locate(MODEL)
    except HighriseError as error:
        pytest.skip(str(error))
    from highrise.serve.cli import open_engine_backend
    from highrise.serve.config import ServeConfig

    opened = open_engine_backend(
        MODEL, ServeConfig(weights="int4", threads=2, max_context=1024, kernels=STEADY, engine="thread")
    )
    yield opened
    opened.runner.close()


@pytest.fixture(scope="module")
def tokenizer(backend: EngineBackend) -> Tokenizer:
    return backend.engine.tokenizer


@pytest.fixture(scope="module")
def client(backend: EngineBackend) -> Iterator[openai.OpenAI]:
    with listening(serve_app(backend)) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def answer(backend: EngineBackend, grammar: Grammar, prompt: str = "Answer:", **options: Any) -> tuple[str, str | None]:
    """Text and finish reason of one request, through the engine's thread."""
    constraint = compile_grammar(grammar, backend.engine.tokenizer)
    sampling = Sampling(**{"temperature": 1.0, "max_tokens": 400, **options})
    ids = backend.engine.tokenizer.encode(prompt)

    async def run() -> tuple[str, str | None]:
        text, reason = "", None
        async for output in backend.runner.generate(Request(prompt_ids=ids, sampling=sampling, constraint=constraint)):
            text += output.text
            reason = output.finish_reason
        return text, reason

    return asyncio.run(run())


# -------------------------------------------------------------------------------------------------------------- schemas

NAMES = st.sampled_from(["name", "size", "a b", "größe", 'qu"ote', "back\\slash", "new\nline"])
TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=5)
"""The vocabulary of smollm2 has no tokens for bytes that only rarer characters hold."""


def _string(low: int, more: int) -> dict[str, Any]:
    return {"type": "string", "minLength": low, "maxLength": low + more}


def _integer(low: int, more: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": low + more}


SCALARS = st.one_of(
    st.builds(_string, st.integers(0, 2), st.integers(0, 6)),
    st.builds(_integer, st.integers(-50, 50), st.integers(0, 100)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.lists(st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.none()), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from([{"type": "string", "format": "date"}, {"type": "string", "pattern": "^[a-c]{1,3}$"}]),
)


def _object(properties: dict[str, Any], needed: list[bool]) -> dict[str, Any]:
    required = [name for name, must in zip(properties, needed, strict=False) if must]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(_object, st.dictionaries(NAMES, inner, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3)),
        st.builds(lambda one: {"type": "array", "items": one, "minItems": 1, "maxItems": 2}, inner),
        st.lists(inner, min_size=1, max_size=2).map(lambda some: {"anyOf": some}),
    ),
    max_leaves=4,
)


def check(text: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(text), schema)


@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_choice_of_allowed_tokens_is_an_instance_of_the_schema(
    tokenizer: Tokenizer, schema: dict[str, Any], seed: int
) -> None:
    """Without a model: whoever chooses, and whatever tokens, what comes out parses and fits."""
    random = np.random.default_rng(seed)
    matcher = compile_grammar(Grammar("json", json.dumps(schema)), tokenizer)
    ids: list[int] = []
    while not matcher.finished:
        assert len(ids) < 2000
        logits = random.standard_normal(tokenizer.vocab_size + 7).astype(np.float32)
        token = int(np.argmax(matcher.mask(logits)))
        matcher.accept(token)
        ids.append(token)
    assert not matcher.failure
    check(tokenizer.decode([token for token in ids if token not in tokenizer.eos_ids]), schema)


@given(schema=SCHEMAS, seed=st.integers(0, 2**31))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_model_always_writes_an_instance_of_the_schema(
    backend: EngineBackend, schema: dict[str, Any], seed: int
) -> None:
    text, reason = answer(backend, Grammar("json", json.dumps(schema)), seed=seed)
    assert reason == "stop"
    check(text, schema)


@pytest.mark.slow
@given(schema=SCHEMAS, seed=st.integers(0, 2**31), temperature=st.sampled_from([0.0, 0.7, 2.0]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_model_always_writes_an_instance_of_many_schemas(
    backend: EngineBackend, schema: dict[str, Any], seed: int, temperature: float
) -> None:
    text, reason = answer(backend, Grammar("json", json.dumps(schema)), seed=seed, temperature=temperature)
    assert reason == "stop"
    check(text, schema)


# ---------------------------------------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", r"[0-9]{3}-[0-9]{4}"), r"\d{3}-\d{4}"),
        (Grammar("lark", 'start: "a" "b"~1..4 "."'), r"ab{1,4}\."),
        (Grammar("lark", 'root ::= "x" [0-9] ("y" | "zz")'), r"x\d(y|zz)"),
    ],
)
def test_regular_expressions_and_grammars(backend: EngineBackend, grammar: Grammar, pattern: str) -> None:
    for seed in range(3):
        text, reason = answer(backend, grammar, seed=seed)
        assert reason == "stop"
        assert re.fullmatch(pattern, text), text


def test_a_grammar_that_allows_longer_answers_leaves_the_end_to_the_model(backend: EngineBackend) -> None:
    text, reason = answer(backend, Grammar("regex", "[a-z ]*"), "The quick brown fox", max_tokens=8)
    assert re.fullmatch("[a-z ]*", text)
    assert reason in ("length", "stop")


def test_min_tokens_gives_way_where_only_the_end_may_come(backend: EngineBackend) -> None:
    text, reason = answer(backend, Grammar("regex", "(yes)?"), min_tokens=20)
    assert text in ("", "yes")
    assert reason == "stop"


def test_ignore_eos_does_not_go_past_the_grammar(backend: EngineBackend) -> None:
    assert answer(backend, Grammar("regex", "(yes|no)"), ignore_eos=True)[0] in ("yes", "no")


def test_stop_strings_cut_inside_the_grammar(backend: EngineBackend) -> None:
    text, reason = answer(backend, Grammar("regex", "abcdef"), stop=("cd",))
    assert (text, reason) == ("ab", "stop")


def test_a_seed_gives_the_same_answer_with_and_without_a_cached_prompt_and_company(backend: EngineBackend) -> None:
    grammar = Grammar("json", json.dumps({"type": "array", "items": {"type": "integer"}, "maxItems": 6, "minItems": 6}))
    prompt = "Here are six of my favourite numbers, in the order in which I like them: "
    first, _ = answer(backend, grammar, prompt, seed=3)
    constraint = compile_grammar(grammar, backend.engine.tokenizer)
    ids = backend.engine.tokenizer.encode(prompt)

    async def together() -> list[str]:
        async def one(seed: int) -> str:
            own = Request(prompt_ids=ids, sampling=Sampling(seed=seed, max_tokens=400), constraint=constraint.fresh())
            return "".join([output.text async for output in backend.runner.generate(own)])

        return await asyncio.gather(one(1), one(3), one(2))

    assert asyncio.run(together())[1] == first


def test_a_cancelled_answer_frees_its_pages(backend: EngineBackend) -> None:
    constraint = compile_grammar(Grammar("regex", "[a-z]{300}"), backend.engine.tokenizer)
    request = Request(prompt_ids=[5, 6, 7], sampling=Sampling(max_tokens=300), constraint=constraint)

    async def leave() -> None:
        source = backend.runner.generate(request)
        async for output in source:
            if output.num_generated == 3:
                break
        await source.aclose()
        while backend.runner.stats().num_running:
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    stats = backend.runner.stats()
    assert stats.num_free_pages == stats.num_pages


def test_compiled_grammars_are_kept_and_each_answer_begins_anew(tokenizer: Tokenizer) -> None:
    constraints = Constraints(tokenizer)
    grammar = Grammar("regex", "[ax][by]")
    one, two = (asyncio.run(constraints.compile(grammar)) for _ in range(2))
    assert one is not None and two is not None and one is not two
    row = np.zeros(tokenizer.vocab_size, np.float32)
    letter = tokenizer.encode("a")[0]
    one.accept(letter)
    assert np.isfinite(two.mask(row)[letter])
    assert not np.isfinite(one.mask(row)[letter])
    assert asyncio.run(constraints.compile(None)) is None


def test_a_token_that_the_grammar_forbids_ends_the_answer_as_incomplete(tokenizer: Tokenizer) -> None:
    matcher = compile_grammar(Grammar("regex", "ab"), tokenizer)
    matcher.accept(tokenizer.encode("z")[0])
    assert matcher.finished and matcher.failure


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (Grammar("json", "{"), "EOF while parsing"),
        (Grammar("json", '{"type": "strng"}'), "Invalid type: strng"),
        (Grammar("json", '{"type": "string", "minLength": 3, "maxLength": 2}'), "Unsatisfiable"),
        (Grammar("json", '{"$ref": "http://example.com/x"}'), "does not fetch"),
        (Grammar("json", '{"type": "object", "unevaluatedProperties": false}'), "unevaluatedProperties"),
        (Grammar("regex", "["), "unclosed character class"),
        (Grammar("lark", "start: absent"), "unknown name"),
        (Grammar("lark", ""), "[Ee]mpty grammar"),
        (Grammar("lark", "root ::= absent"), "absent"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(tokenizer: Tokenizer, grammar: Grammar, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        compile_grammar(grammar, tokenizer)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------- the wire


def asked(**fields: Any) -> Grammar | None:
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], **fields}).encode()
    return grammar_of(decode(body, ChatRequest))


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"response_format": {"type": "json_object"}}, "json", '{"type": "object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}},
            "json",
            '{"type": "null"}',
        ),
        ({"guided_json": {"type": "null"}}, "json", '{"type": "null"}'),
        ({"guided_json": '{"type": "null"}'}, "json", '{"type": "null"}'),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a", "b.c"]}, "regex", r"a|b\x{2e}c"),
        ({"guided_grammar": "start: x"}, "lark", "start: x"),
        ({"structured_outputs": {"choice": ["x"]}}, "regex", "x"),
        ({"structured_outputs": {"json_object": True}}, "json", '{"type": "object"}'),
    ],
)
def test_every_way_to_ask(fields: dict[str, Any], kind: str, text: str) -> None:
    grammar = asked(**fields)
    assert grammar is not None
    assert (grammar.kind, grammar.text) == (kind, text)


def test_nothing_asked_is_nothing() -> None:
    assert asked() is None
    assert asked(response_format={"type": "text"}) is None
    assert asked(structured_outputs={}) is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "response_format.json_schema"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_regex": "a" * 300_000}, "guided_regex"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        asked(**fields)
    assert caught.value.param == param


# ----------------------------------------------------------------------------------------------------- official client


class Person(BaseModel):
    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


MESSAGES: Any = [{"role": "user", "content": "Ada is 36 and happy. Describe her."}]


def test_the_official_client_parses_into_a_pydantic_model(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Person, temperature=0, max_tokens=100
    )
    person = parsed.choices[0].message.parsed
    assert isinstance(person, Person)
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Person, temperature=0, max_tokens=100
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert streamed == person


def test_logprobs_are_the_models_own_and_join_to_the_answer(client: openai.OpenAI) -> None:
    answered = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=20,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        extra_body={"guided_choice": ["xylophone"]},
    )
    assert answered.choices[0].message.content == "xylophone"
    content = answered.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content is not None
    assert "".join(one.token for one in content) == "xylophone"
    assert content[0].logprob < content[0].top_logprobs[0].logprob, "the model itself would have said something else"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_call_fits_its_schema(client: openai.OpenAI, choice: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["C", "F"]}},
    }
    schema |= {"required": ["city", "unit"], "additionalProperties": False}
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    for temperature in (0, 1.5):
        answered = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, tools=tools, tool_choice=choice, temperature=temperature, max_tokens=120
        )
        assert answered.choices[0].finish_reason == "tool_calls"
        calls = answered.choices[0].message.tool_calls
        assert calls is not None and len(calls) == 1
        check(calls[0].function.arguments, schema)  # type: ignore[union-attr]


def test_a_schema_beside_tools_leaves_the_choice_to_the_model(client: openai.OpenAI) -> None:
    answered = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        tools=TOOLS,  # type: ignore[arg-type]
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"enum": [True, False]}},
        },
        max_tokens=200,
        temperature=0,
    )
    message = answered.choices[0].message
    assert message.tool_calls or message.content in ("true", "false")


def test_a_bad_schema_is_400_with_the_reason(client: openai.OpenAI) -> None:
    for stream in (False, True):
        body = {
            "model": MODEL,
            "messages": MESSAGES,
            "stream": stream,
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "strng"}}},
        }
        refused = HTTP.post(f"{client.base_url}chat/completions", json=body)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert error["param"] == "response_format.json_schema.schema"
        assert "Invalid type: strng" in error["message"]


def test_every_choice_of_n_keeps_to_the_grammar(client: openai.OpenAI) -> None:
    answered = client.completions.create(
        model=MODEL, prompt="Yes or no?", n=3, seed=1, max_tokens=5, extra_body={"guided_choice": ["yes", "no"]}
    )
    assert {choice.text for choice in answered.choices} <= {"yes", "no"}


WEATHER: Any = [
    {
        "type": "function",
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 8}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
]


class Mood(BaseModel):
    mood: Literal["happy", "sad"]


def test_the_official_client_parses_a_response(client: openai.OpenAI) -> None:
    answer = client.responses.parse(model=MODEL, input="How is Ada?", text_format=Mood, temperature=0)
    assert isinstance(answer.output_parsed, Mood)
    bad = {"input": "a", "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "strng"}}}}
    refused = HTTP.post(f"{client.base_url}responses", json=bad)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "text.format.schema"


def test_a_forced_call_and_log_probabilities_of_a_real_model(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Weather in Bonn?", tools=WEATHER, tool_choice="required")
    (call,) = answer.output
    assert call.type == "function_call" and set(json.loads(call.arguments)) == {"city"}
    said = client.responses.create(
        model=MODEL, input="Hi", max_output_tokens=16, top_logprobs=2, include=["message.output_text.logprobs"]
    )
    message = said.output[0]
    assert message.type == "message"
    part = message.content[0]
    assert part.type == "output_text" and part.logprobs
    assert len(part.logprobs[0].top_logprobs) == 2
