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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Pair(msgspec.Struct):
    """Our engine and transformers' model over one folder, and the prompts as ids."""

    engine: Engine
    model: transformers.PreTrainedModel
    prompts: list[list[int]]

    def ours(self) -> list[list[int]]:
        sampling = Sampling(temperature=0, max_tokens=COUNT, ignore_eos=True)
        requests = [Request(prompt_ids=ids, sampling=sampling) for ids in self.prompts]
        return [[id for output in outputs for id in output.ids] for outputs in self.engine.generate(requests)]

    def first_gap(self, ids: list[int], own: list[int]) -> float | None:
        """Where transformers would part from our answer first: the nats between the two candidates; None if nowhere.

        One pass over prompt and answer gives what it would choose behind each token, as long as it chose the same.
        """
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids + own[:-1]])).logits[0, len(ids) - 1 :].float()
        for scores, token in zip(logits.log_softmax(-1), own, strict=True):
            if int(scores.argmax()) != token:
                return float(scores.max() - scores[token])
        return None


@pytest.fixture(scope="module", params=["smollm2-135m", "qwen2.5-coder-0.5b"])
def pair(request):
    try:
        file = locate(request.param)
    except HighriseError as error:
        pytest.skip(f"{request.param} is not in the local cache: {error}")
    folder = Path(".cache") / f"{request.param}-float32"
    tokenizer = Tokenizer.for_weights(file)
    if not (folder / "tokenizer.json").exists():
        # a model that was read from GGUF is not saved by transformers; one with its numbers is
        expanded = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
        config = expanded.config
        del config.quantization_config
        plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        plain.load_state_dict(expanded.state_dict())
        plain.save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes(tokenizer.to_json())  # the last of all: the folder is whole
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine = Engine.load(folder, weights="float32", kv="fp32", threads=os.cpu_count() or 1, max_context=512)
    return Pair(engine, model, [tokenizer.encode(text) for text in PROMPTS])


def test_the_greedy_tokens_are_equal_but_for_near_ties(pair):
    answers = pair.ours()
    assert [len(own) for own in answers] == [COUNT] * len(PROMPTS)
    found = [pair.first_gap(ids, own) for ids, own in zip(pair.prompts, answers, strict=True)]
    gaps = [gap for gap in found if gap is not None]
    report(
        f"{pair.engine.name} beside transformers {transformers.__version__}, float32: {len(PROMPTS) - len(gaps)} of "
        f"{len(PROMPTS)} equal in {COUNT} tokens, gaps of the rest {gaps}"
    )
    assert all(gap < NEAR for gap in gaps)
