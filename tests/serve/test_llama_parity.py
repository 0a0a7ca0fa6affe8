"""The tokens of llama.cpp from the same file: with stored bits in its own order of operations, and in float32.

Run by `make test-all`; needs llama-server (scripts/build_llama.sh), the models in the catalogue's cache and 2.5 GB of
disk under `.cache` for weights in float32. What was found is printed, and kept in `.cache/parity.txt`.

Rounding activations to 8 bits makes the last bit of a float sum matter: llama.cpp with another setting of its own
gives other tokens (docs/log/serve-engine.md has how many). So it runs here with one setting that can be followed: one
token at a time (`-ub 1`: prompts in batches take another order) and the file's blocks as they are (`--no-repack`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.native import csrc
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling, TokenLogprob
from tests.serve.llama_cpp import LlamaServer, llama_server, tool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 64
NEAR = 0.05
"""Nats between the two best candidates below which either may be chosen."""
WIDE = 0.5
"""The same between kernels that round in different places: each is then about 0.1 off (docs/log/serve-engine.md)."""
SAME = 1e-5
"""Nats by which distances between candidates may differ where the bits of the logits are the same."""
FOLLOWED = ["-ub", "1", "-b", "64", "--no-repack"]
CACHE = Path(".cache")
ISA = next(isa for isa in csrc.available_isas() if isa != "amx")
"""AMX rounds to bfloat16 in long steps; the comparison is about 8-bit activations."""

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


class Pair(msgspec.Struct):
    """Our engine and llama.cpp's server over the same weights, prompts as ids, and the answers of both."""

    engine: Engine
    server: LlamaServer
    prompts: list[list[int]]

    def ours(self, ids: list[int], count: int, top: int = 10) -> list[TokenLogprob]:
        sampling = Sampling(temperature=0, max_tokens=count, logprobs=top)
        outputs = self.engine.generate([Request(prompt_ids=ids, sampling=sampling)])[0]
        return [score for output in outputs for score in output.logprobs or ()]

    def theirs_next(self, ids: list[int], top: int = 10) -> dict[int, float]:
        scores = self.server.greedy(ids, 1, top=top)["completion_probabilities"][0]["top_logprobs"]
        return {score["id"]: score["logprob"] for score in scores}

    def divergences(self) -> Iterator[tuple[list[int], int, int]]:
        """Where the greedy answers part: the tokens up to there, our choice, theirs."""
        for ids in self.prompts:
            own = [score.id for score in self.ours(ids, COUNT, 0)]
            other = self.server.greedy(ids, COUNT, top=0)["tokens"]
            for place, (left, right) in enumerate(zip(own, other, strict=False)):
                if left != right:
                    yield ids + own[:place], left, right
                    break


def report(text: str) -> None:
    """Print a finding and keep it beside the other caches."""
    print(text)
    with (CACHE / "parity.txt").open("a") as file:
        file.write(text + "\n")


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def path(request):
    tool("llama-server")
    try:
        return locate(request.param)
    except HighriseError as error:
        pytest.skip(f"{request.param} is not in the local cache: {error}")


@pytest.fixture(scope="module")
def exact(path):
    """Both in float32, from the stored bits expanded, nothing rounded on the way."""
    wide = CACHE / f"{path.stem}.F32.gguf"
    if not wide.exists():
        CACHE.mkdir(exist_ok=True)
        subprocess.run(
            [tool("llama-quantize"), "--allow-requantize", str(path), str(wide), "F32"], check=True, capture_output=True
        )
    engine = Engine.load(path, weights="float32", kv="fp32", threads=2, max_context=512, isa=ISA)
    with llama_server(wide, arguments=["-ctk", "f32", "-ctv", "f32"]) as server:
        yield Pair(engine, server, [engine.tokenizer.encode(text) for text in PROMPTS])


@pytest.fixture(scope="module")
def stored(path):
    """Both with the bits of the file, ours in llama.cpp's order."""
    orders = csrc.available_orders()
    if not orders:
        pytest.skip("llama.cpp's order of operations is followed on x86 with AVX2 only")
    engine = Engine.load(path, weights="stored", threads=2, max_context=256, isa=orders[0])
    with llama_server(path, threads=1, arguments=FOLLOWED) as server:
        yield Pair(engine, server, [engine.tokenizer.encode(text) for text in PROMPTS])


@pytest.fixture(scope="module")
def fast(path, stored):
    """The kernels that people run, beside the same server."""
    engine = Engine.load(path, weights="stored", threads=2, max_context=256, isa=ISA)
    return Pair(engine, stored.server, stored.prompts)


def test_prompt_ids_are_identical(stored):
    engine, server = stored.engine, stored.server
    for text, ids in zip(PROMPTS, stored.prompts, strict=True):
        assert ids == server.tokenize(text, special=False)
    chat = engine.prompts.chat([{"role": "user", "content": "Write a loop."}])
    assert chat.ids == server.tokenize(chat.text)
    if engine.prompts.supports_infill:
        infill = engine.prompts.infill("def add(a, b):\n    return ", "\n")
        assert infill.ids == server.tokenize(infill.text)


def test_in_float32_the_greedy_tokens_are_equal_but_for_near_ties(exact):
    gaps = []
    for context, own, other in exact.divergences():
        scores = exact.theirs_next(context)
        gaps.append(abs(scores[own] - scores[other]) if own in scores else np.inf)
    report(f"{exact.engine.name} float32: {len(PROMPTS) - len(gaps)} of {len(PROMPTS)} equal, gaps of the rest {gaps}")
    assert all(gap < NEAR for gap in gaps)


def test_with_stored_bits_the_greedy_tokens_are_equal_but_for_near_ties(stored):
    """What the issue asks, word for word; that not even near ties part, and probabilities agree, shows equal bits."""
    gaps = []
    for context, own, other in stored.divergences():
        scores = stored.theirs_next(context)
        gaps.append(abs(scores[own] - scores[other]) if own in scores else np.inf)
    worst = 0.0
    for ids in stored.prompts:
        # the server sums the probabilities of all tokens in single precision: distances to the best token are exact
        own, other = stored.ours(ids, 1)[0].top, stored.theirs_next(ids)
        best = own[0][0]
        worst = max(worst, *(abs(score - own[0][1] - other[token] + other[best]) for token, score in own))
    name, isa = stored.engine.name, stored.engine.decoder.isa
    report(
        f"{name} stored, {isa}: {len(PROMPTS) - len(gaps)} of {len(PROMPTS)} equal, gaps of the rest {gaps}; "
        f"distances of the next nine to the best token after each prompt differ by at most {worst:.1e}"
    )
    assert all(gap < NEAR for gap in gaps)
    assert not gaps
    assert worst < SAME


def test_the_fast_kernels_are_as_near_to_float32(exact, fast):
    """They round activations in other places than llama.cpp. Neither is the other's truth: float32 is."""
    own_errors, other_errors = [], []
    for ids in fast.prompts:
        truth = dict(exact.ours(ids, 1, 20)[0].top)
        own_errors += [value - truth[token] for token, value in fast.ours(ids, 1)[0].top if token in truth]
        other_errors += [value - truth[token] for token, value in fast.theirs_next(ids).items() if token in truth]
    own_error, other_error = (float(np.sqrt(np.mean(np.square(errors)))) for errors in (own_errors, other_errors))
    gaps = []
    for context, own, other in fast.divergences():
        truth = dict(exact.ours(context, 1, 20)[0].top)
        gaps.append(abs(truth[own] - truth[other]) if own in truth and other in truth else np.inf)
    near = sum(gap < NEAR for gap in gaps)
    report(
        f"{fast.engine.name} stored, {ISA}: {len(PROMPTS) - len(gaps)} of {len(PROMPTS)} equal, {near} parted at a gap "
        f"below {NEAR}, the others at {sorted(round(gap, 3) for gap in gaps if gap >= NEAR)}; log-probabilities of the "
        f"ten best tokens are off by {own_error:.3f} (ours) and {other_error:.3f} (llama.cpp) root mean square"
    )
    assert own_error < 1.3 * other_error
    assert all(gap < WIDE for gap in gaps)
