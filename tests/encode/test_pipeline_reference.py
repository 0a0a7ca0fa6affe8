"""The models of `rust/encode/src/pipeline` against slow obvious ones, on small vocabularies that hypothesis makes."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.encode import Tokenizer
from highrise.encode.pipeline import PipelineFile
from tests.reference import unigram as reference

WORDS = st.text(st.sampled_from("abé"), min_size=1, max_size=4)
TEXTS = st.text(st.sampled_from("abéx"), max_size=14)
SCORES = st.dictionaries(WORDS, st.integers(-20, -1).map(float), min_size=1, max_size=12)


@settings(max_examples=200)
@given(scores=SCORES, text=TEXTS)
def test_unigram_finds_the_best_sum(scores: dict[str, float], text: str) -> None:
    vocabulary = [["<unk>", 0.0], *([word, score] for word, score in scores.items())]
    file = {"model": {"type": "Unigram", "unk_id": 0, "vocab": vocabulary}, "decoder": {"type": "Fuse"}}
    tokenizer = Tokenizer.from_bytes(json.dumps(file).encode())
    ids, spans = tokenizer.encode_with_offsets(text, unit="characters")
    unknown = min(scores.values()) - 10
    found = sum(
        scores[text[start:end]] if index else unknown * (end - start)
        for index, (start, end) in zip(ids, spans, strict=True)
    )
    assert found == reference.unigram(text, {"<unk>": 0.0, **scores})


@settings(max_examples=200)
@given(words=st.sets(WORDS, max_size=8), rests=st.sets(WORDS, max_size=8), text=TEXTS)
def test_wordpiece_takes_the_longest(words: set[str], rests: set[str], text: str) -> None:
    tokens = ["[UNK]", *sorted(words), *(f"##{rest}" for rest in sorted(rests))]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    file = {"model": {"type": "WordPiece", "vocab": vocabulary}, "pre_tokenizer": {"type": "WhitespaceSplit"}}
    expected = reference.wordpiece(text, vocabulary, unknown=0) if text else []
    assert Tokenizer.from_bytes(json.dumps(file).encode()).encode(text) == expected


@settings(max_examples=200)
@given(scores=SCORES, text=TEXTS)
def test_bpe_by_scores_merges_the_best_first(scores: dict[str, float], text: str) -> None:
    tokens = ["<unk>", *scores]
    normalizer = {
        "type": "SentencePiece",
        "precompiled_charsmap": "",
        **dict.fromkeys(("add_dummy_prefix", "remove_extra_whitespaces", "treat_whitespace_as_suffix"), False),
        "escape_whitespaces": True,
    }
    file = PipelineFile(
        tokens=tokens,
        scores=[0.0, *scores.values()],
        kinds=bytes([2] + [1] * len(scores)),
        model={"type": "SentencePieceBPE", "unk_id": 0, "byte_fallback": False},
        normalizer=normalizer,
    )
    ids: list[int] = []
    for part in reference.bpe_by_scores(text, scores):
        index = tokens.index(part) if part in scores else 0
        if index or not ids or ids[-1]:
            ids.append(index)
    assert Tokenizer(file).encode(text) == ids
