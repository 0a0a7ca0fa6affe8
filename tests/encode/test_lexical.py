"""BM25 equals its reference, and words are cut as programmers join them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.encode.lexical import K1, B, LexicalIndex, terms, write_lexical
from tests.reference.bm25 import bm25


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("read_csv_file", ["read_csv_file", "read", "csv", "file"]),
        ("readCsvFiles", ["readcsvfiles", "read", "csv", "file"]),
        ("HTTPServer2", ["httpserver2", "http", "server", "2"]),
        ("parseJSON", ["parsejson", "parse", "json"]),
        ("__init__", ["init"]),
        ("files class is", ["file", "class", "is"]),
        ("größe Straße", ["größe", "straße"]),
        ("数据 x1", ["数据", "x1", "x", "1"]),
        ("a" * 65, []),
        ("_ ... \n", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@given(
    texts=st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "getName", "get_name", "name", "é", "数", "x"]), max_size=12).map(
            " ".join
        ),
        max_size=12,
    ),
    query=st.lists(st.sampled_from(["a", "b", "get", "name", "missing", "é"]), max_size=5).map(" ".join),
)
def test_scores_equal_the_reference(texts: list[str], query: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts = write_lexical(Path(folder), texts)
        scores = LexicalIndex(Path(folder), len(texts)).scores(query)
    documents = [terms(text) for text in texts]
    assert counts["terms"] == len({term for document in documents for term in document})
    np.testing.assert_allclose(scores, bm25(documents, terms(query), k1=K1, b=B), rtol=1e-5)


def test_either_spelling_finds_the_other(tmp_path: Path) -> None:
    write_lexical(tmp_path, ["def readCsvFile(): ...", "def write_json(): ...", "nothing"])
    index = LexicalIndex(tmp_path, 3)
    for query in ("read_csv_file", "read csv files", "READ_CSV"):
        assert index.scores(query).argmax() == 0
    assert index.scores("parquet").max() == 0


def test_an_index_of_nothing(tmp_path: Path) -> None:
    assert write_lexical(tmp_path, []) == {"terms": 0, "postings": 0}
    assert LexicalIndex(tmp_path, 0).scores("x").shape == (0,)
    write_lexical(tmp_path, ["", "..."])
    assert LexicalIndex(tmp_path, 2).scores("x").tolist() == [0, 0]


def test_a_damaged_index_is_one_sentence(tmp_path: Path) -> None:
    write_lexical(tmp_path, ["one text"])
    path = tmp_path / "row_weights.npy"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="damaged"):
        LexicalIndex(tmp_path, 1)
