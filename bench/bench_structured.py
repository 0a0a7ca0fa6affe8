"""Structured output: one token under a JSON schema on the 151,936 tokens of the coder vocabulary.

A call asks for the mask, puts it on a row of logits and takes the token, for each token of one answer. The peer is the
same library with its own numpy functions. Both allow the same tokens, which is asserted first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.encode import Tokenizer
from highrise.serve.adapters.llguidance import Matcher, compile_grammar
from highrise.serve.constraint import Grammar

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
ANSWER = {"name": 'Ada, "the first" of all', "age": 36, "tags": ["mathematics", "poetry", "engines", "größer"]}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    try:
        return Tokenizer.for_weights(locate("qwen2.5-coder-0.5b"))
    except HighriseError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def matcher(tokenizer: Tokenizer) -> Matcher:
    return compile_grammar(Grammar("json", json.dumps(SCHEMA)), tokenizer)


@pytest.fixture(scope="module")
def row(tokenizer: Tokenizer) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(tokenizer.vocab_size).astype(np.float32)


def ours(matcher: Matcher, ids: list[int], row: np.ndarray) -> Iterator[np.ndarray]:
    state = matcher.fresh()
    for token in ids:
        yield state.mask(row)
        state.accept(token)


def theirs(matcher: Matcher, ids: list[int], row: np.ndarray) -> Iterator[np.ndarray]:
    from llguidance import numpy as glue

    state: Any = matcher._matcher.deep_copy()
    bits = glue.allocate_token_bitmask(1, len(row))
    for token in ids:
        copy = row.copy()
        glue.fill_next_token_bitmask(state, bits)
        glue.apply_token_bitmask_inplace(copy, bits)
        yield copy
        state.consume_token(token)


@pytest.mark.parametrize("who", ["highrise", "llguidance (its numpy functions)"])
def test_token_under_a_schema(
    benchmark: Any, matcher: Matcher, tokenizer: Tokenizer, row: np.ndarray, who: str
) -> None:
    ids = tokenizer.encode(json.dumps(ANSWER, ensure_ascii=False))
    for one, other in zip(ours(matcher, ids, row), theirs(matcher, ids, row), strict=True):
        np.testing.assert_array_equal(one, other)

    def run() -> None:
        for _ in (ours if who == "highrise" else theirs)(matcher, ids, row):
            pass

    benchmark.extra_info.update(path="structured-output-mask", who=who, amount=len(ids), unit="tokens")
    benchmark.pedantic(run, rounds=15, warmup_rounds=1)
