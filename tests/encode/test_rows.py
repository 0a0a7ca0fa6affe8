"""Rows for training and fill-in-the-middle samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode import Tokenizer
from highrise.encode.config import DEFAULT_SPECIALS
from highrise.encode.middle import middle_samples
from highrise.encode.rows import best_fit, fill_rows
from tests.encode.vocabularies import made


@settings(max_examples=200)
@given(lengths=st.lists(st.integers(0, 40), max_size=40), row=st.integers(1, 16))
def test_every_token_is_in_one_row_and_short_documents_stay_whole(lengths: list[int], row: int) -> None:
    rows = best_fit(lengths, row)
    assert all(0 < sum(end - start for _, start, end in parts) <= row for parts in rows)
    seen = sorted((index, token) for parts in rows for index, start, end in parts for token in range(start, end))
    assert seen == [(index, token) for index, length in enumerate(lengths) for token in range(length)]
    for index, length in enumerate(lengths):
        assert sum(part[0] == index for parts in rows for part in parts) == -(-length // row)


def test_the_tightest_room_is_taken() -> None:
    assert best_fit([6, 5, 4, 3, 2], 8) == [[(0, 0, 6), (4, 0, 2)], [(1, 0, 5), (3, 0, 3)], [(2, 0, 4)]]
    with pytest.raises(InputError, match="rows of 0 tokens cannot hold anything"):
        best_fit([1], 0)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(0, 20), max_size=20), seed=st.none() | st.integers(0, 5))
def test_rows_hold_the_documents(lengths: list[int], seed: int | None) -> None:
    offsets = np.cumsum([0, *lengths])
    tokens = np.arange(offsets[-1]) + 1
    rows = list(fill_rows(tokens, offsets, 8, pad=0, seed=seed))
    assert all(ids.shape == documents.shape == (8,) for ids, documents in rows)
    assert sorted(int(token) for ids, _ in rows for token in ids if token) == tokens.tolist()
    assert all(((documents == 0) == (ids == 0)).all() for ids, documents in rows)
    again = list(fill_rows(tokens, offsets, 8, pad=0, seed=seed))
    assert [ids.tolist() for ids, _ in rows] == [ids.tolist() for ids, _ in again]


def test_middle_samples_hold_the_whole_text() -> None:
    text = "def f(x):\n    return x + 1\n" * 3
    tokenizer = Tokenizer.train([text] * 3, vocabulary=300, special=DEFAULT_SPECIALS)
    named = tokenizer.special_tokens
    prefix, middle, suffix = (named[f"<|fim_{name}|>"] for name in ("prefix", "middle", "suffix"))
    kinds = set()
    for ids in middle_samples(tokenizer, [text] * 200, rate=0.7, seed=3):
        if prefix not in ids:
            kinds.add("plain")
            assert tokenizer.decode(ids) == text
            continue
        end = next((at for at, index in enumerate(ids) if index == named["<|endoftext|>"]), len(ids))
        before = tokenizer.decode(ids[ids.index(prefix) + 1 : ids.index(suffix)])
        after = tokenizer.decode(ids[ids.index(suffix) + 1 : ids.index(middle)])
        kinds.add("prefix first" if before else "suffix first")
        assert before + tokenizer.decode(ids[ids.index(middle) + 1 : end]) + after == text
    assert kinds == {"plain", "prefix first", "suffix first"}
    with pytest.raises(InputError, match="this vocabulary has no fill-in-the-middle tokens"):
        list(middle_samples(made("gpt2"), [text], rate=0.5))
    with pytest.raises(InputError, match="are shares"):
        list(middle_samples(tokenizer, [text], rate=2))
