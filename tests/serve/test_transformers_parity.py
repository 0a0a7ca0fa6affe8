"""The greedy tokens of transformers from the same safetensors folder, both catalogue models in float32.

The folder is written by transformers itself out of the catalogue's GGUF file, so that nothing of ours stands between.
Run by `make test-all`; needs the models in the catalogue's cache and 2.5 GB of disk under `.cache`.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
import torch
import transformers

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.engine import Engine
from highrise.serve.request import Request, Sampling
from tests.serve.test_llama_parity import COUNT, NEAR, PROMPTS, report

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Pair(msgspec.Struct):
    """Our engine and transformers' model over one folder, and the prompts as ids."""

    engine: Engine
    model: transformers.PreTrainedModel
    prompts: list[list[int]]

    def ours(self) -> list[list[int]]:
        sampling = Sampling(temperature=0, max_tokens=COUNT, ignore_eos=True)
        requests = [Request(prompt_ids=ids, sampling=sampling) for ids in self.prompts]
        return [[id for output in outputs for id in output.ids] for outputs in self.engine.generate(requests)]

    def theirs(self, ids: list[int]) -> list[int]:
        with torch.inference_mode():
            answer = self.model.generate(
                torch.tensor([ids]), max_new_tokens=COUNT, min_new_tokens=COUNT, do_sample=False, pad_token_id=0
            )
        return answer[0, len(ids) :].tolist()

    def gap(self, context: list[int], left: int, right: int) -> float:
        """How far apart transformers sees two candidates behind a context, in nats."""
        with torch.inference_mode():
            scores = self.model(torch.tensor([context])).logits[0, -1].float().log_softmax(-1)
        return abs(float(scores[left] - scores[right]))


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def pair(request):
    try:
        file = locate(request.param)
    except HighriseError as error:
        pytest.skip(f"{request.param} is not in the local cache: {error}")
    folder = Path(".cache") / f"{request.param}-float32"
    if not (folder / "config.json").exists():
        # a model that was read from GGUF is not saved by transformers; one with its numbers is
        expanded = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
        config = expanded.config
        del config.quantization_config
        plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(expanded.state_dict())
        plain.save_pretrained(folder)
    tokenizer = Tokenizer.for_weights(file)
    (folder / "tokenizer.json").write_bytes(tokenizer.to_json())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.generation_config = transformers.GenerationConfig()
    engine = Engine.load(folder, weights="float32", kv="fp32", threads=os.cpu_count() or 1, max_context=512)
    return Pair(engine, model, [tokenizer.encode(text) for text in PROMPTS])


def test_the_greedy_tokens_are_equal_but_for_near_ties(pair):
    gaps = []
    for ids, own in zip(pair.prompts, pair.ours(), strict=True):
        other = pair.theirs(ids)
        assert len(own) == len(other) == COUNT
        place = next((place for place in range(COUNT) if own[place] != other[place]), None)
        if place is not None:
            gaps.append(pair.gap(ids + own[:place], own[place], other[place]))
    report(
        f"{pair.engine.name} beside transformers {transformers.__version__}, float32: {len(PROMPTS) - len(gaps)} of "
        f"{len(PROMPTS)} equal in {COUNT} tokens, gaps of the rest {gaps}"
    )
    assert all(gap < NEAR for gap in gaps)
