"""The commands of the tokenizer half, as a user types them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from highrise.cli import main
from highrise.encode import Tokenizer
from highrise.encode.config import DEFAULT_SPECIALS
from highrise.encode.packed import PackedTokens
from highrise.encode.prompt import PromptFormat
from tests.encode.vocabularies import made

TEXT = "def f(x):\n    return x  # ünï <|im_end|>\n"


@pytest.fixture
def model(tmp_path: Path) -> str:
    made("qwen2").save(tmp_path / "tokenizer.json")
    return str(tmp_path / "tokenizer.json")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_text(TEXT)
    return path


def test_ids_and_back(
    model: str, source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["encode", "ids", "-t", model, str(source)]) == 0
    printed = capsys.readouterr().out
    assert [int(word) for word in printed.split()] == made("qwen2").encode(TEXT)
    assert main(["encode", "ids", "-t", model, "--special", "--json", str(source)]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed == [{"file": str(source), "ids": made("qwen2").encode(TEXT, special="all")}]
    for spelled in (printed, json.dumps(listed[0]["ids"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(spelled.encode())))
        assert main(["encode", "decode", "-t", model, "-"]) == 0
        assert capsys.readouterr().out == TEXT


def test_count(model: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "count", "-t", model, "--json", str(source)]) == 0
    expected = {"file": str(source), "tokens": made("qwen2").count(TEXT), "bytes": len(TEXT.encode())}
    assert json.loads(capsys.readouterr().out) == [expected]
    assert main(["encode", "count", "-t", model, str(source), str(source)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("total")


def test_train_then_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out, packed = tmp_path / "texts", tmp_path / "tokenizer", tmp_path / "x.tokens"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "no.txt").write_text("hidden")
    for name in ("a", "b"):
        (folder / f"{name}.txt").write_text(f"the {name} sat on the mat, " * 30)
    (folder / "c.bin").write_bytes(b"\xff\xfe")
    assert main(["encode", "train", "--vocabulary", "300", "-o", str(out), str(folder)]) == 0
    captured = capsys.readouterr()
    assert (
        "skipped 1 of 3 files that are no UTF-8 text" in captured.err and "MB/s" in captured.out
    ) or "B/s" in captured.out
    tokenizer = Tokenizer.for_weights(out)
    assert tokenizer.vocab_size <= 300
    assert (
        PromptFormat.for_weights(out, tokenizer).chat([{"role": "user", "content": "x"}]).text.endswith("assistant\n")
    )
    assert main(["encode", "pack", "-t", str(out), "-o", str(packed), "--json", str(folder)]) == 0
    counts = json.loads(capsys.readouterr().out)
    tokens = PackedTokens(packed)
    assert (counts["tokens"], counts["documents"]) == (len(tokens.tokens), len(tokens)) and len(tokens) == 2
    end = tokenizer.special_tokens["<|endoftext|>"]
    for index, name in enumerate("ab"):
        assert tokens.document(index).tolist() == [*tokenizer.encode(f"the {name} sat on the mat, " * 30), end]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ids", "missing.txt"], "cannot read missing.txt: No such file or directory"),
        (["ids", "-t", "no-such-model", "pyproject.toml"], "no-such-model"),
        (["train", "-o", "x", "missing"], "there is no missing"),
        (["train", "-o", "x", "--vocabulary", "9", "tests"], "vocabulary = 9 is too small"),
        (["train", "-o", "x", "--vocabulary", "9" * 20, "tests"], "is too large: 16777216 ids are the most"),
        (["train", "-o", "x", "--min-count", "-5", "tests"], "min_count = -5"),
        (["pack", "-o", "x", "--split", "train", "tests"], "--split needs a data folder, and tests is none"),
    ],
)
def test_bad_input_leaves_with_2(
    arguments: list[str], message: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = arguments
    given = [] if verb == "train" or "-t" in rest else ["-t", model]
    assert main(["encode", verb, *given, *rest]) == 2
    assert message in capsys.readouterr().err


def test_text_that_is_not_utf8_and_ids_that_are_none(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad").write_bytes(b"a\xff")
    assert main(["encode", "count", "-t", model, str(tmp_path / "bad")]) == 2
    assert "bad is no UTF-8 text" in capsys.readouterr().err
    (tmp_path / "words").write_text("1 two")
    assert main(["encode", "decode", "-t", model, str(tmp_path / "words")]) == 2
    assert "holds something that is no token id" in capsys.readouterr().err


def test_packing_nothing_leaves_the_older_file(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "x.tokens").write_bytes(b"older")
    assert main(["encode", "pack", "-t", model, "-o", str(tmp_path / "x.tokens"), str(tmp_path / "none")]) == 2
    assert "there is no text in" in capsys.readouterr().err
    assert (tmp_path / "x.tokens").read_bytes() == b"older"


def test_inspect(model: str, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, spans = made("qwen2").encode_with_offsets(TEXT, unit="characters")
    assert main(["encode", "inspect", "-t", model, "--json", str(source)]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert [(token["id"], token["start"], token["end"]) for token in tokens] == [
        (index, start, end) for index, (start, end) in zip(ids, spans, strict=True)
    ]
    assert main(["encode", "inspect", "-t", model, str(source)]) == 0
    captured = capsys.readouterr()
    assert captured.out.replace("|", "") == TEXT.replace("|", "") + "\n" and "bytes a token" in captured.err
    assert main(["encode", "inspect", "-t", model, "--colour", str(source)]) == 0
    assert "\x1b[44mdef\x1b[0m" in capsys.readouterr().out
    assert main(["encode", "inspect", "-t", model, "--ids", str(source)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(ids)


def test_compare(model: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made("gpt2").save(tmp_path / "other.json")
    other = str(tmp_path / "other.json")
    assert main(["encode", "compare", model, model, str(source), "--check"]) == 0
    assert "the ids are the same" in capsys.readouterr().out
    assert main(["encode", "compare", model, other, str(source), "--check"]) == 1
    assert main(["encode", "compare", model, other, str(source), "--json"]) == 0
    assert '"same_ids":false' in capsys.readouterr().out


def test_tables_are_packed_row_by_row(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["one", "zwei ü", ""]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"body": row}) + "\n\n" for row in rows))
    pq.write_table(pa.table({"body": rows}), tmp_path / "x.parquet")
    for name in ("x.jsonl", "x.parquet"):
        out = tmp_path / f"{name}.tokens"
        assert main(["encode", "pack", "-t", model, "--field", "body", "-o", str(out), str(tmp_path / name)]) == 0
        packed = PackedTokens(out)
        end = made("qwen2").special_tokens["<|endoftext|>"]
        expected = [[*made("qwen2").encode(row), end] for row in rows]
        assert [packed.document(index).tolist() for index in range(len(packed))] == expected
        assert main(["encode", "pack", "-t", model, "-o", str(out), str(tmp_path / name)]) == 2
        assert "--field" in capsys.readouterr().err


def test_pack_cuts_for_the_middle(tmp_path: Path, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer.train([TEXT] * 3, vocabulary=300, special=DEFAULT_SPECIALS)
    tokenizer.save(tmp_path / "tokenizer.json")
    command = ["encode", "pack", "-t", str(tmp_path / "tokenizer.json"), "-o", str(tmp_path / "x.tokens"), str(source)]
    assert main([*command, "--middle", "1", "--seed", "4"]) == 0
    ids = PackedTokens(tmp_path / "x.tokens").document(0).tolist()
    named = tokenizer.special_tokens
    assert ids[0] == named["<|fim_prefix|>"] and ids[-1] == named["<|endoftext|>"] != ids[-2]
    assert main([*command, "--middle", "2"]) == 2
    assert "are shares: give numbers from 0 to 1" in capsys.readouterr().err
