"""Records: the editor's own bytes, masks on answers only, pairs that differ, files that are read or refused."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.align.records import chat_samples, damage, infill_samples, pairs, read_pairs
from highrise.core.errors import ConfigError
from highrise.encode import Tokenizer
from highrise.encode.prompt import PromptFormat
from highrise.train.infill import Cut, cut_infill, pieces
from tests.train.small import documents, tokenizer_folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> PromptFormat:
    folder = tokenizer_folder(tmp_path_factory.mktemp("tokenizer"))
    return PromptFormat.for_weights(folder, Tokenizer.from_file(folder / "tokenizer.json"))


def test_infill_samples_begin_as_the_editors_prompt(prompts: PromptFormat) -> None:
    special = prompts.tokenizer.special_tokens
    texts = {document.text for document in documents()}
    found = list(infill_samples(list(documents()), prompts, sequence=256, seed=1))
    assert len(found) > 50
    for ids, mask in found:
        first = mask.index(True)
        assert all(mask[first:]) and ids[first - 1] == special["<|fim_middle|>"]
        start, at = ids.index(special["<|fim_prefix|>"]), ids.index(special["<|fim_suffix|>"])
        decode = prompts.tokenizer.decode
        prefix, suffix, middle = decode(ids[start + 1 : at]), decode(ids[at + 1 : first - 1]), decode(ids[first:-1])
        assert any(prefix + middle + suffix in text for text in texts)
        asked = prompts.infill(prefix, suffix).ids
        assert ids[start:first] == asked


def test_chat_samples_answer_with_the_code(prompts: PromptFormat) -> None:
    ids, mask = next(iter(chat_samples(list(documents()), prompts, sequence=512, seed=1)))
    answer = prompts.tokenizer.decode([token for token, asked in zip(ids, mask, strict=True) if asked])
    assert answer.startswith("```python\ndef add_") and "return" in answer
    assert "<|im_end|>" in answer


def test_pairs_share_the_prompt_and_differ_in_the_answer(prompts: PromptFormat) -> None:
    for pair in itertools.islice(pairs(list(documents()), prompts, sequence=256, seed=1), 50):
        first = pair.chosen[1].index(True)
        assert pair.rejected[1].index(True) == first
        assert pair.chosen[0][:first] == pair.rejected[0][:first]
        assert pair.chosen[0][first:] != pair.rejected[0][first:]


@given(st.text(alphabet="ab_ \n\t(x)é", max_size=300), st.integers(0, 1000))
def test_a_cut_is_the_text_in_three_parts(text: str, seed: int) -> None:
    draw = random.Random(seed)
    cut = cut_infill(text, draw, longest=40)
    if cut is not None:
        assert "".join(cut) == text and cut.middle.strip() and len(cut.middle) <= 40
        worse = damage(cut, text, draw)
        assert worse is None or worse.strip() != cut.middle.strip()


@given(st.text(alphabet="ab \n", max_size=300), st.integers(1, 50))
def test_pieces_are_the_text(text: str, longest: int) -> None:
    found = pieces(text, longest)
    assert "".join(found) == text and all(len(piece) <= longest for piece in found)


def test_damage_knows_no_right_answer() -> None:
    cut = Cut("total = ", "first + second", "\nreturn total\n")
    draws = [damage(cut, "".join(cut), random.Random(seed)) for seed in range(60)]
    assert len({worse for worse in draws if worse}) >= 8
    assert cut.middle not in draws


def test_pairs_from_a_file(prompts: PromptFormat, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"prompt": "hi", "chosen": "hello", "rejected": "what"},
        {"prompt": [{"role": "user", "content": "hi"}], "chosen": "hello", "rejected": "what"},
        {"prefix": "a = ", "suffix": "\n", "chosen": "1", "rejected": "2"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    first, second, third = read_pairs(path, prompts, sequence=128)
    assert first == second and third.chosen != first.chosen
    for bad, words in (
        ('{"prompt": "a"}', "no preference pair"),
        ('{"chosen": "a", "rejected": "b"}', "needs either"),
        ("", "no pairs"),
    ):
        path.write_text(bad)
        with pytest.raises(ConfigError, match=words):
            read_pairs(path, prompts, sequence=128)
    with pytest.raises(ConfigError, match="cannot read"):
        read_pairs(tmp_path / "absent.jsonl", prompts, sequence=128)
