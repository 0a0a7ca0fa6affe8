"""The pieces are those of the published regular expressions."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.core.native import rust
from tests.encode.vocabularies import FRAGMENTS, SCHEMES, corpus, texts
from tests.reference import bpe

PLAIN = [fragment for fragment in FRAGMENTS if fragment.isascii()]
"""Long runs of these go through the blocks of 64 bytes."""
GOLDEN = Path(__file__).parents[1] / "golden" / "tokenizer_split.json"


def pieces(text: str, scheme: str, *, path: str | None = None) -> list[str]:
    content = text.encode()
    ends = rust.split_pieces(text, scheme, path=path)
    return [content[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=150)
@given(text=texts(), plain=st.lists(st.sampled_from(PLAIN), max_size=80).map("".join))
def test_split_is_that_of_the_regular_expression(scheme: str, text: str, plain: str) -> None:
    for whole in (text, plain + text + plain):
        expected = bpe.split(whole, scheme)
        for path in rust.split_paths():
            assert pieces(whole, scheme, path=path) == expected, path


@pytest.mark.parametrize("scheme", SCHEMES)
def test_split_of_real_text(scheme: str) -> None:
    for text in corpus():
        assert pieces(text, scheme) == bpe.split(text, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_characters_of_all_kinds(scheme: str) -> None:
    # One in 17; `cargo test` holds the class of every code point to regex-syntax.
    codes = [*range(0x3000), *range(0x3000, 0x110000, 17)]
    characters = [chr(code) for code in codes if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    for at in range(0, len(characters), 4000):
        text = "".join(f"a{character}b {character}1{character} " for character in characters[at : at + 4000])
        assert pieces(text, scheme) == bpe.split(text, scheme)


def test_golden_pieces() -> None:
    golden = json.loads(GOLDEN.read_text())
    for scheme, expected in golden["pieces"].items():
        assert pieces(golden["text"], scheme) == expected, scheme


def test_an_unknown_scheme_is_one_sentence() -> None:
    with pytest.raises(InputError, match='the split pattern "gpt9" is not known; known are gpt2, smollm'):
        rust.split_pieces("x", "gpt9")


def test_a_path_that_the_processor_lacks_is_one_sentence() -> None:
    assert {"portable", "scanner"} <= set(rust.split_paths())
    with pytest.raises(InputError, match=r'no way to split called "mmx"; it has .*portable, scanner'):
        rust.split_pieces("x", "gpt2", path="mmx")
