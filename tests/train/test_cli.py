"""The commands of floors 4 and 5: what they print, and how they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from highrise.cli import main
from highrise.train.corpus import build_corpus
from tests.train.small import TINY, documents, tokenizer_folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    build_corpus(TINY, documents(), tokenizer_folder(folder / "tokenizer"), folder / "tokens")
    return folder / "tokens"


def _toml(path: Path, **changes: object) -> str:
    values = {**msgspec.to_builtins(TINY), **changes}
    path.write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None))
    return str(path)


def test_run_then_eval(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _toml(tmp_path / "train.toml", tokens=256 * 4)
    assert main(["train", "run", config, "--tokens", str(tokens), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    text = tmp_path / "a.py"
    text.write_text("def f():\n    return 1\n")
    assert main(["train", "eval", str(tmp_path / "out"), str(text), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_bytes"] == 22 and found["bits_per_byte"] > 0


def test_bad_usage_leaves_with_two(tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _toml(tmp_path / "train.toml")
    out = str(tmp_path / "out")
    assert main(["train", "run", config, "--tokens", str(tokens), "--out", out, "--base", "smollm2-135m"]) == 2
    assert "base = 'smollm2-135m' and depth = 1" in capsys.readouterr().err
    (tmp_path / "odd.toml").write_text("widht = 3\n")
    assert main(["train", "run", str(tmp_path / "odd.toml"), "--tokens", str(tokens), "--out", out]) == 2
    assert "unknown field `widht`" in capsys.readouterr().err
    assert main(["align", "guard", str(tmp_path / "absent")]) == 2
    assert main(["align", "tune", "smollm2-135m", "--data", out, "--out", out, "--method", "ppo"]) == 2
    assert "ppo" in capsys.readouterr().err


def test_guard_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "answer.md"
    text.write_text("fine\n")
    assert main(["align", "guard", str(text)]) == 0
    text.write_text("first\nrm -rf /\n")
    assert main(["align", "guard", str(text)]) == 1
    assert "line 2" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "words"), [(b"\x7fELF\xff\xfe", "no UTF-8 text"), (b"PK\0\0", "NUL bytes")])
def test_guard_refuses_what_is_no_text(
    content: bytes, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(content)
    assert main(["align", "guard", str(tmp_path / "file")]) == 2
    assert words in capsys.readouterr().err


def test_an_absurd_depth_is_refused_before_it_is_allocated(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "run", "--depth", "5000", "--tokens", str(tokens), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "TB" in said and "lower train.depth" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train run --tokens . --out out --depth 0", "depth is 0"),
        ("train run --tokens . --out out --base nowhere", "nowhere"),
        ("train eval nowhere a.py", "cannot read a.py"),
        ("train eval nowhere x --threads -1", "--threads is -1"),
        ("align tune nowhere --data . --out out", "nowhere"),
        ("align tune model --data . --out out --budget soon", "soon"),
        ("align merge nowhere . --out out", "nowhere"),
    ],
)
def test_a_wrong_word_is_told_before_torch_is_loaded(words: str, said: str, tmp_path: Path) -> None:
    program = (
        "import sys; from highrise.cli import main; code = main(sys.argv[1:]);"
        "assert not {'torch', 'pyarrow'} & set(sys.modules); sys.exit(code)"
    )
    run = [sys.executable, "-c", program, *words.split()]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_cheap_imports_load_no_torch() -> None:
    program = (
        "import sys, highrise.train, highrise.train.commands, highrise.align.guard, highrise.align.cli_guard,"
        "highrise.align.config; assert 'torch' not in sys.modules and 'pyarrow' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
