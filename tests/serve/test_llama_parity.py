"""The same first tokens as llama.cpp, from the same file with its stored bits, except where two candidates nearly tie.

Run by `make test-all`; needs llama-server (scripts/build_llama.sh) and the model in the catalogue's cache.
"""

from __future__ import annotations

import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling
from tests.serve.llama_cpp import llama_server, tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 16
NEAR = 0.05
"""Nats between the two best candidates below which either may be chosen."""

PROMPTS = [
    "def quicksort(items):\n    ",
    "The three primary colours are",
    "import json\n\ndef read_settings(path):\n    with open(path) as file:\n        ",
    "SELECT name, count(*) FROM orders WHERE",
    "Once upon a time, in a land far away,",
    "fn main() {\n    let numbers = vec![1, 2, 3];\n    for",
    "# Installation\n\nTo install the package, run",
    "class Matrix:\n    def __init__(self, rows, columns):\n        self.rows = rows\n",
    "Water boils at a temperature of",
    "for (let i = 0; i < items.length; i++) {\n  ",
    "El perro corre por el parque porque",
    "import torch\nimport torch.nn as nn\n\nclass Net(nn.Module):\n    def __init__(self):\n",
    "Q: What is 12 times 12?\nA:",
    "try:\n    value = int(text)\nexcept ValueError",
    "Les mathématiques sont une science qui",
    "#include <stdio.h>\n\nint main(void) {\n    printf(",
    "日本の首都は",
    '{\n  "name": "example",\n  "version": ',
    'def test_parse_date():\n    assert parse_date("2024-02-29") ==',
    "    \t\n\n  if x == 0x1F600: print('😀')  # emoji\n",
]


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def both(request):
    tool("llama-server")
    try:
        path = locate(request.param)
    except HighriseError as error:
        pytest.skip(f"{request.param} is not in the local cache: {error}")
    engine = Engine.load(path, weights="stored", threads=2, max_context=1024)
    with llama_server(path) as server:
        yield engine, server


def test_prompt_ids_are_identical(both):
    engine, server = both
    for text in PROMPTS:
        assert engine.tokenizer.encode(text) == server.tokenize(text, special=False)
    chat = engine.prompts.chat([{"role": "user", "content": "Write a loop."}])
    assert chat.ids == server.tokenize(chat.text)
    if engine.prompts.supports_infill:
        infill = engine.prompts.infill("def add(a, b):\n    return ", "\n")
        assert infill.ids == server.tokenize(infill.text)


def test_greedy_tokens_are_equal_but_for_near_ties(both, record_property):
    engine, server = both
    equal, ties, wrong, distances = 0, [], [], []
    for text in PROMPTS:
        prompt = engine.tokenizer.encode(text)
        theirs = server.greedy(prompt, COUNT)
        sampling = Sampling(temperature=0, max_tokens=COUNT, logprobs=3)
        outputs = engine.generate([Request(prompt_ids=prompt, sampling=sampling)])[0]
        ours = [score for output in outputs for score in output.logprobs or ()]
        for place, (own, other) in enumerate(zip(ours, theirs, strict=False)):
            distances.append(abs(own.top[0][1] - other["top_logprobs"][0]["logprob"]))
            if own.id == other["id"]:
                continue
            best, second = (score["logprob"] for score in other["top_logprobs"][:2])
            own_gap = own.top[0][1] - own.top[1][1]
            record = (
                f"{text!r} at {place}: {own.id} for {other['id']}, gap {best - second:.3f} there, {own_gap:.3f} here"
            )
            (ties if min(best - second, own_gap) < NEAR else wrong).append(record)
            break
        else:
            equal += 1
    distances.sort()
    summary = (
        f"{engine.name}: {equal} of {len(PROMPTS)} prompts with {COUNT} equal tokens, {len(ties)} ended by a near tie; "
        f"log-probability of the best token differs by {distances[len(distances) // 2]:.4f} (median), "
        f"{distances[-1]:.4f} (largest)"
    )
    print("\n".join([summary, *ties, *wrong]))
    record_property("parity", summary)
    assert not wrong, "\n".join([summary, *wrong])
