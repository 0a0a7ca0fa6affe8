"""WordPiece ids are exactly those of `tokenizers`."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from highrise.core.errors import InputError
from highrise.encode.wordpiece import WordPiece
from tests.encode.minilm_weights import minilm_folder

# A vocabulary small enough to read: letters, their continuations, a few words and marks.
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *LETTERS,
    *(f"##{x}" for x in LETTERS),
    *"!(),.:;=_[]-'\"é中文ß",
]
WORDS = [
    "def",
    "return",
    "##turn",
    "re",
    "##ing",
    "encode",
    "##code",
    "self",
    "un",
    "##able",
    "##ff",
    "strasse",
    "ω",
    "##ω",
]


def tokenizer_json() -> dict[str, object]:
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ends = {name: {"id": name, "ids": [PIECES.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    template = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": PIECES[i], **flags} for i in range(5)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": template, "pair": [], "special_tokens": ends},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {piece: i for i, piece in enumerate([*PIECES, *WORDS])},
        },
    }


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[WordPiece, Reference]:
    path = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
    path.write_text(json.dumps(tokenizer_json()))
    return WordPiece.from_file(path), Reference.from_file(str(path))


# Categories have grown since the tables of `tokenizers` were made (Unicode 8): newer marks are left out.
def _settled(character: str) -> bool:
    return unicodedata.category(character) not in ("Mn", "Mc", "Cf", "Cs", "Cn") and (
        unicodedata.category(character)[0] != "P" or ord(character) < 0x600
    )


texts = st.text(
    st.one_of(
        st.sampled_from("[]CLSEPMASK defreturning_()é中文ßΣςİ\u0301\u200b\0\t\n\x1c"), st.characters().filter(_settled)
    ),
    max_size=60,
)


@given(text=texts)
def test_ids_equal_those_of_tokenizers(pair: tuple[WordPiece, Reference], text: str) -> None:
    ours, reference = pair
    assert ours.encode(text) == reference.encode(text).ids


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x" * 100,
        "x" * 101,
        "[CLS] in [MASK]text[SEP]",
        "[cls] [UNK]",
        "naïve ÉCOLE",
        "def f(self): return 1",
        "中文code",
    ],
)
def test_corners(pair: tuple[WordPiece, Reference], text: str) -> None:
    ours, reference = pair
    assert ours.encode(text) == reference.encode(text).ids


@given(text=texts, limit=st.integers(2, 20))
def test_a_cut_text_is_the_front_of_the_whole(pair: tuple[WordPiece, Reference], text: str, limit: int) -> None:
    ours, _ = pair
    whole, cut = ours.encode(text), ours.encode(text, max_tokens=limit)
    assert len(cut) == min(limit, len(whole))
    assert cut[:-1] == whole[: len(cut) - 1]
    assert cut[-1] == ours.sep_id


def test_every_file_of_the_package_with_the_real_vocabulary() -> None:
    path = minilm_folder() / "tokenizer.json"
    ours, reference = WordPiece.from_file(path), Reference.from_file(str(path))
    reference.no_truncation()
    reference.no_padding()
    files = sorted((Path(__file__).parents[2] / "python" / "highrise").rglob("*.py"))
    assert len(files) > 10
    for file in files:
        text = file.read_text()
        assert ours.encode(text) == reference.encode(text).ids, file


def test_every_character_with_the_real_vocabulary() -> None:
    path = minilm_folder() / "tokenizer.json"
    ours, reference = WordPiece.from_file(path), Reference.from_file(str(path))
    reference.no_truncation()
    reference.no_padding()
    different = []
    for code in (*range(0xD800), *range(0xE000, 0x30000)):
        text = f"a{chr(code)}B é{chr(code)}"
        if ours.encode(text) != reference.encode(text).ids:
            different.append(code)
    assert len(different) < 800  # characters younger than Unicode 8, whose category the tables of the reference lack
    assert all(code > 0x61C for code in different)


def test_another_model_is_refused(tmp_path: Path) -> None:
    plain = tokenizer_json()
    plain["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(InputError, match="BPE"):
        WordPiece.from_file(path)
    path.write_text("{")
    with pytest.raises(InputError, match="not a WordPiece"):
        WordPiece.from_file(path)
    with pytest.raises(InputError, match="cannot read"):
        WordPiece.from_file(tmp_path / "none.json")
