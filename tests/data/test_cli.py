"""The commands of floor `data`: output, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from highrise.cli import main
from tests.data.conftest import MakeRepository, module


@pytest.fixture
def built(make_repository: MakeRepository, tmp_path: Path) -> Path:
    files: dict[str, str | bytes] = {f"m{n}.py": module(n) for n in range(30)}
    folder = make_repository("team", {**files, "bad.py": "def (", "src/m1.py": module(77)})
    assert main(["data", "build", str(folder), "--out", str(tmp_path / "data"), "--threads", "1"]) == 0
    return tmp_path / "data"


def test_build_says_what_it_did_and_reuses(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(built.parent / "team")
    assert main(["data", "build", source, "--out", str(built), "--threads", "1"]) == 0
    text = capsys.readouterr().out
    assert "31 of 32 files" in text and "1 broken" in text and "unchanged, reused" in text
    assert main(["data", "build", source, "--out", str(built), "--threads", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["reused"] and answer["counts"]["documents"] == 31
    assert main(["data", "build", source, "--out", str(built), "--near-duplicate", "0.5", "--seed", "3", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["reused"]


def test_a_configuration_file(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "data.toml"
    config.write_text(f'sources = ["{built.parent / "team"}"]\nvalidation = 0.5\n[cleaning]\nmin_quality = 0.1\n')
    capsys.readouterr()
    assert (
        main(["data", "build", "--config", str(config), "--out", str(tmp_path / "other"), "--threads", "1", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["counts"]["validation"] > 5
    config.write_text("source = []\n")
    assert main(["data", "build", "--config", str(config)]) == 2
    assert "unknown field `source`" in capsys.readouterr().err


def test_inspect(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "inspect", str(built), "--sample", "2"]) == 0
    text = capsys.readouterr().out
    assert "documents: 31" in text and text.count("--- team/") == 2
    assert main(["data", "inspect", str(built), "--sample", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["manifest"]["stage"] == "data" and len(answer["sample"]) == 1


def test_why(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["data", "why", "bad.py", "--data", str(built)]) == 0
    assert "team/bad.py: dropped as broken (line 1: invalid syntax): does not parse" in capsys.readouterr().out
    assert main(["data", "why", "m1.py", "--data", str(built), "--json"]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == ["m1.py"]
    assert main(["data", "why", str(built.parent / "team" / "src" / "m1.py"), "--data", str(built)]) == 0
    assert "team/src/m1.py: kept" in capsys.readouterr().out
    assert main(["data", "why", "nothing.py", "--data", str(built)]) == 2
    assert "no source of" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_dedup(tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [module(n % 10) for n in range(30)] + [module(3) + "# remark\n"]
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({"id": range(31), "text": texts}), source)
    else:
        source.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    assert main(["data", "dedup", str(source), str(target), "--json", "--threads", "1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["kept"], summary["exact_duplicates"], summary["near_duplicates"]) == (10, 20, 1)
    if ending == "parquet":
        rows = pq.read_table(target).to_pylist()
    else:
        rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(10))
    assert rows[0]["text"] == texts[0]
    labels = pq.read_table(f"{target}.clusters.parquet").column("cluster").to_pylist()
    assert labels == [n % 10 for n in range(30)] + [3]
    assert main(["data", "dedup", str(source), str(target)]) == 0
    assert "10 of 31 texts kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "/nowhere"], "does not exist"),
        (["build", ".", "--near-duplicate", "7"], "near_duplicate is 7"),
        (["build", ".", "--threads", "0"], "--threads is 0"),
        (["build", ".", "--validation", "0.9"], "validation is 0.9"),
        (["dedup", "nothing.parquet", "o.parquet"], "is not a file"),
        (["dedup", "ok.parquet", "o.parquet", "--memory", "much"], '--memory: cannot read "much"'),
        (["dedup", "ok.parquet", "o.parquet", "--shingle", "words"], 'shingle is "words"'),
        (["dedup", "ok.parquet", "o.parquet", "--slack", "2"], "slack is 2"),
        (["dedup", "good.jsonl", "o.parquet"], "would be Parquet made of JSON lines"),
        (["dedup", "good.jsonl", "o.jsonl", "--column", "id"], "line 1"),
        (["dedup", "good.jsonl", "o.jsonl", "--column", "body"], 'no column "body" but text, id'),
        (["spans", "ok.parquet", "o.parquet", "--min-bytes", "3"], "min_bytes is 3"),
        (["lines", "ok.parquet", "o.parquet", "--more-than", "0"], "more_than is 0"),
        (["lines", "mixed/a.jsonl", "folder"], 'ends in ""'),
        (["dedup", "empty", "o"], "has no .parquet or .jsonl file"),
        (["dedup", "mixed", "o"], "has Parquet and JSON files"),
        (["dedup", "in.csv", "o.parquet"], 'ends in ".csv"'),
        (["dedup", "bad.parquet", "o.parquet"], "cannot be read"),
        (["dedup", "bad.jsonl", "o.jsonl"], "cannot be read"),
        (["dedup", "ok.parquet", "o.csv"], 'ends in ".csv"'),
        (["dedup", "ok.parquet", "o.parquet", "--column", "body"], 'no column "body" but text, id'),
        (["dedup", "ok.parquet", "o.parquet", "--column", "id"], "has type int64"),
        (["dedup", "ok.parquet", "o.parquet", "--threshold", "2"], "threshold is 2"),
        (["dedup", "ok.parquet", "./ok.parquet"], "is the file that is read"),
        (["dedup", "ok.parquet", "o.parquet", "--seed", "-1"], "--seed is -1"),
        (["build", ".", "--seed", "-1"], "seed is -1"),
        (["build", ".", "--max-file-bytes", "9" * 30], "max_file_bytes is 9999"),
        (["build", ".", "--out", "in.csv"], "no stage lies there"),
        (["build", ".", "--config", "negative.toml"], "max_line_length is -1"),
        (["inspect", "in.csv"], "Not a directory"),
        (["inspect", "."], "is not a finished stage"),
        (["inspect", ".", "--sample", "-1"], "--sample is -1; use 0 or more"),
        (["why", "a.py", "--data", "."], "is not a finished stage"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.csv").write_text("text\n")
    Path("bad.parquet").write_text("no")
    Path("negative.toml").write_text("[cleaning]\nmax_line_length = -1\n")
    Path("bad.jsonl").write_text("{no")
    Path("good.jsonl").write_text('{"text": "a", "id": 1}\n')
    Path("empty").mkdir()
    Path("mixed").mkdir()
    Path("mixed/a.jsonl").write_text("{}\n")
    Path("mixed/b.parquet").write_text("")
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), "ok.parquet")
    assert main(["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("verb", ["build", "dedup", "spans", "lines", "inspect", "why"])
def test_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["data", verb, "--help"])
    assert stop.value.code == 0
    assert f"example:\n  highrise data {verb}" in capsys.readouterr().out


def test_a_source_without_a_name_is_not_the_current_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "build", "", "--out", str(tmp_path / "data")]) == 2
    assert 'a source has no name; give a folder ("." is this one)' in capsys.readouterr().err
