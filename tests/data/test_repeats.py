"""Repeated spans and lines against their slow references, and the verbs that cut them out of tables."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from highrise.cli import main
from highrise.core.errors import InputError
from highrise.data import cut, frequent_lines, repeated_spans
from tests.reference import repeats


@st.composite
def patchworks(draw: st.DrawFn) -> list[bytes]:
    """Texts stitched together from a few pieces and fresh bytes."""
    generator = random.Random(draw(st.integers(0, 10**6)))
    letters = generator.choice(["a", "ab", "abcdef", "abcdefghijklmnopqrstuvwxyz \n"])
    pieces = ["".join(generator.choices(letters, k=generator.randrange(1, 60))) for _ in range(4)]
    texts = []
    for _ in range(generator.randrange(1, 6)):
        parts = []
        for _ in range(generator.randrange(6)):
            parts.append(generator.choice(pieces))
            parts.append("".join(generator.choices(letters, k=generator.randrange(12))))
        texts.append("".join(parts).encode())
    return texts


@given(patchworks(), st.integers(16, 40))
@options(max_examples=300)
def test_spans_are_the_reference_s(texts: list[bytes], length: int) -> None:
    found = repeated_spans(texts, min_bytes=length)
    marks = [[False] * len(text) for text in texts]
    for text, start, end in zip(found.text, found.start, found.end, strict=True):
        assert not any(marks[text][start:end])
        marks[text][start:end] = [True] * (end - start)
    assert marks == repeats.covered(texts, length)
    little = repeated_spans(texts, min_bytes=length, memory=200)  # several passes
    assert [*map(list, (little.text, little.start, little.end))] == [*map(list, (found.text, found.start, found.end))]
    for text, first_text, first_start in zip(found.text, found.first_text, found.first_start, strict=True):
        window = texts[first_text][first_start : first_start + length]
        assert len(window) == length and window in texts[text]
    left = cut(texts, found)
    assert [len(text) for text in left] == [row.count(False) for row in marks]


def test_what_is_left_of_text_is_text() -> None:
    base = "日本語のテキスト、naïve façade — " * 3
    texts = ["x" + base, "é" + base[1:] + "ü", "日" + base]
    left = cut(texts, repeated_spans(texts, min_bytes=20))
    assert left[0] == texts[0][: len(left[0])] and all(isinstance(text, str) for text in left)
    assert len("".join(left)) < len(texts[0]) + 10
    column = pa.array(texts)
    assert cut(column, repeated_spans(column, min_bytes=20)) == left
    encoded = [text.encode() for text in texts]
    assert [text.decode() for text in cut(encoded, repeated_spans(encoded, min_bytes=20))] == left


def test_a_copy_is_one_span() -> None:
    generator = np.random.default_rng(3)
    text = generator.integers(97, 123, 5000, dtype=np.uint8).tobytes()
    found = repeated_spans([text, b"head" + text + b"tail", text[:60]], min_bytes=100)
    assert [found.text.tolist(), found.start.tolist(), found.end.tolist()] == [[1], [4], [5004]]
    assert (found.first_text.tolist(), found.first_start.tolist(), found.bytes) == ([0], [0], 5000)


@given(
    st.lists(
        st.lists(st.sampled_from(["import os", " import os\r", "", "}", "x = 1", "日本"]), max_size=8), max_size=6
    ),
    st.integers(1, 3),
    st.integers(1, 8),
)
@options(max_examples=200)
def test_lines_are_the_reference_s(texts: list[list[str]], more_than: int, min_bytes: int) -> None:
    encoded = ["\n".join(lines).encode() for lines in texts]
    found = frequent_lines(encoded, more_than=more_than, min_bytes=min_bytes, threads=2)
    rows = list(zip(found.text.tolist(), found.start.tolist(), found.end.tolist(), found.texts.tolist(), strict=True))
    assert rows == repeats.lines(encoded, more_than, min_bytes)
    assert sum(map(len, cut(encoded, found))) == sum(map(len, encoded)) - found.bytes


LICENCE = "# Licensed under the terms of the licence of the project\n# without any warranty whatsoever\n"


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_verbs(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts: list[str | None] = [f"{LICENCE}value_{n} = {n}\n" for n in range(30)]
    texts[7] = None
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    rows = [{"id": n, "text": text} for n, text in enumerate(texts)]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def read() -> list[str | None]:
        if ending == "parquet":
            return list(pq.read_table(target).column("text").to_pylist())
        return [json.loads(line)["text"] for line in target.read_text().splitlines()]

    assert main(["data", "lines", str(source), str(target), "--more-than", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "texts": 30,
        "lines": 2,
        "places": 58,
        "bytes_cut": 29 * len(LICENCE),
    }
    assert read() == [None if text is None else text.removeprefix(LICENCE) for text in texts]
    report = pq.read_table(f"{target}.lines.parquet").to_pylist()
    assert [row["texts"] for row in report] == [29, 29]
    assert sorted(row["line"] for row in report) == sorted(LICENCE.splitlines())
    assert main(["data", "spans", str(source), str(target), "--min-bytes", "60"]) == 0
    assert "28 spans" in capsys.readouterr().out
    assert read()[0] == texts[0]
    assert all(text is None or len(text) < 20 for text in read()[1:])
    report = pq.read_table(f"{target}.spans.parquet").to_pylist()
    assert len(report) == 28 and all(row["first_text"] < row["text"] for row in report)


def test_bad_arguments_are_sentences() -> None:
    with pytest.raises(InputError, match="min_bytes is 8"):
        repeated_spans(["a"], min_bytes=8)
    with pytest.raises(InputError, match="more_than is 0"):
        frequent_lines(["a"], more_than=0)
    with pytest.raises(InputError, match="text 0 is a int"):
        repeated_spans([1])
    found = repeated_spans(["a" * 40, "a" * 40], min_bytes=16)
    with pytest.raises(InputError, match="has 1 bytes"):
        cut(["a", "b"], found)
