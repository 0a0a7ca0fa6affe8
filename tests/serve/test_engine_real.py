"""The engine on real weights (smollm2-135m from the catalogue's cache) with the native decoder."""

from __future__ import annotations

import asyncio

import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.native import csrc
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling
from highrise.serve.runner import EngineRunner
from tests.serve.engine_parts import alone, ids_of

pytestmark = pytest.mark.timeout(240)

PROMPTS = [
    "def fibonacci(n):\n",
    "The capital of France is",
    "import numpy as np\n\ndef softmax(x):\n    ",
    "Once upon a time there was a small village where",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
]


@pytest.fixture(scope="module")
def path():
    try:
        return locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(f"smollm2-135m is not in the local cache: {error}")


STEADY = next(isa for isa in csrc.available_isas() if isa != "amx")
"""The AMX kernels compute steps of many tokens in bfloat16: there a token may depend on what else is in the step."""


@pytest.fixture(scope="module")
def engine(path):
    return Engine.load(path, threads=2, max_context=1024, isa=STEADY)


@pytest.fixture(autouse=True)
def cold_and_whole(request):
    if "engine" in request.fixturenames:
        engine = request.getfixturevalue("engine")
        engine.cache.clear()
        yield
        engine.cache.check()
        assert engine.cache.num_free == engine.cache.num_pages
    else:
        yield


def ask(engine: Engine, text: str, count: int = 16, **sampling) -> Request:
    sampling = {"temperature": 0.0, **sampling}
    return Request(prompt_ids=engine.tokenizer.encode(text), sampling=Sampling(max_tokens=count, **sampling))


def text_of(outputs) -> str:
    return "".join(output.text for output in outputs)


def test_the_model_knows_the_capital_of_france(engine):
    assert "Paris" in text_of(engine.generate([ask(engine, PROMPTS[1])])[0])


def test_text_is_the_decoding_of_the_ids(engine):
    outputs = engine.generate([ask(engine, PROMPTS[3], 40)])[0]
    assert text_of(outputs) == engine.tokenizer.decode(ids_of(outputs))


def test_company_and_cached_beginnings_change_nothing(engine):
    requests = [ask(engine, text, seed=index, temperature=index % 2) for index, text in enumerate(PROMPTS)]
    expected = alone(engine, requests)
    assert [ids_of(outputs) for outputs in engine.generate(requests)] == expected
    assert [ids_of(outputs) for outputs in engine.generate(requests)] == expected
    assert engine.stats().cached_tokens > 0


def test_preemption_changes_nothing(path, engine):
    expected = [ids_of(engine.generate([ask(engine, text, 24)])[0]) for text in PROMPTS]
    tight = Engine.load(path, threads=2, num_pages=7, isa=STEADY)
    results = tight.generate([ask(tight, text, 24) for text in PROMPTS])
    assert tight.stats().num_preemptions > 0
    assert [ids_of(outputs) for outputs in results] == expected


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_fewer_bits_still_know_it(path, weights):
    engine = Engine.load(path, weights=weights, threads=2, max_context=128)
    assert "Paris" in text_of(engine.generate([ask(engine, PROMPTS[1], 8)])[0])


def test_every_instruction_set_answers(path):
    answers = {}
    for isa in csrc.available_isas():
        engine = Engine.load(path, isa=isa, threads=2, max_context=128)
        answers[isa] = text_of(engine.generate([ask(engine, PROMPTS[1], 6)])[0])
    assert all("Paris" in text for text in answers.values()), answers


def test_a_stream_killed_in_the_middle_leaves_the_others_alone(engine):
    runner = EngineRunner(engine)

    async def run():
        async def collect(text, leave_after):
            outputs = []
            stream = runner.generate(ask(engine, text, 30))
            async for output in stream:
                outputs.append(output)
                if len(outputs) == leave_after:
                    break
            await stream.aclose()
            return outputs

        return await asyncio.gather(*(collect(text, 4 if index % 2 else 99) for index, text in enumerate(PROMPTS)))

    try:
        results = asyncio.run(run())
    finally:
        runner.close()
    while engine.has_work:
        engine.step()
    for text, outputs in zip(PROMPTS[::2], results[::2], strict=True):
        engine.cache.clear()
        assert ids_of(outputs) == ids_of(engine.generate([ask(engine, text, 30)])[0])


def test_guessing_ahead_gives_the_same_tokens_in_fewer_steps(engine):
    text = "Numbers: one two three four five six. Again: one two three four five six. Again: one two three"
    for temperature in (0.0, 0.5):
        request = ask(engine, text, 24, temperature=temperature, seed=3)
        steps, answers = [], []
        for engine.scheduler.speculate in (False, True):
            engine.cache.clear()
            before = engine.stats().num_steps
            answers.append(ids_of(engine.generate([request])[0]))
            steps.append(engine.stats().num_steps - before)
        assert answers[0] == answers[1]
        assert steps[1] <= steps[0]
        if temperature == 0.0:
            assert steps[1] < steps[0]


@pytest.mark.slow
def test_a_key_in_a_file_is_answered_as_if_all_were_computed():
    """The coder weights: what is typed letter by letter gets nearly always the answer that a cold engine gives."""
    try:
        path = locate("qwen2.5-coder-0.5b")
    except HighriseError as error:
        pytest.skip(f"qwen2.5-coder-0.5b is not in the local cache: {error}")
    engine = Engine.load(path, weights="int4", threads=2, max_context=2048, isa=STEADY)
    before = "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    "
    after = "\n\n\nprint(volume(1, 2, 3))\nprint(area(4, 5))\n"
    typed = "return area(width, height) * depth"
    answers: dict[bool, list[str]] = {True: [], False: []}
    for floats in answers:
        engine.cache.clear()
        for count in range(0, len(typed), 3):
            prompt = engine.prompts.infill(before + typed[:count], after, heal=True)
            request = Request(
                prompt_ids=prompt.ids,
                sampling=Sampling(temperature=0, max_tokens=8, stop_ids=prompt.stop_ids, stop=("\n",)),
                floating=prompt.floating if floats else None,
                begins=prompt.begun,
            )
            answers[floats].append(typed[:count] + text_of(engine.generate([request])[0]))
    assert engine.stats().moved_tokens > 0
    equal = sum(one == other for one, other in zip(answers[True], answers[False], strict=True))
    assert equal >= 0.8 * len(answers[True]), answers
