"""Packing: the same file whatever interrupts it, shuffled by a seed, and rows of one length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from highrise.cli import main
from highrise.core.progress import Progress
from highrise.encode import Tokenizer, pack
from highrise.encode.pack import PackOptions, documents_of_rows, pack_texts
from highrise.encode.packed import PackedTokens

END = "<|endoftext|>"
TEXTS = [f"def function_{index}(x):\n    return x * {index}\n" * (1 + index % 5) for index in range(120)]

KILLED = """
import os, signal, sys
from highrise.encode import pack
from tests.encode.test_pack import packed_small

write, done = pack.write_packed, []

def write_and_die(path, content, size):
    found = write(path, content, size)
    done.append(path)
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return found

pack.write_packed = write_and_die
from pathlib import Path
packed_small(Path(sys.argv[1]))
"""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "BATCH_CHARACTERS", 500)
    monkeypatch.setattr(pack, "PART_TOKENS", 800)


def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocabulary=300, special=(END,))


def packed_small(out: Path, **options: int | float | None) -> pack.Packed:
    """The texts in many parts of few batches."""
    pack.BATCH_CHARACTERS, pack.PART_TOKENS = 500, 800
    made = tokenizer()
    chosen = PackOptions(end=made.special_tokens[END], **options)
    with Progress("pack", unit="B") as progress:
        return pack_texts(iter(TEXTS), made, out, options=chosen, key="texts", threads=1, progress=progress)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_killed_run_goes_on_and_gives_the_same_file(tmp_path: Path, parts: int) -> None:
    killed, whole = tmp_path / "killed.tokens", tmp_path / "whole.tokens"
    run = subprocess.run([sys.executable, "-c", KILLED, str(killed), str(parts)], capture_output=True, text=True)
    assert run.returncode == -9, run.stderr
    assert not killed.exists() and (tmp_path / "killed.tokens.parts").is_dir()
    # Where the kill came between a part and the state that names it, that part is done again.
    again, at_once = packed_small(killed), packed_small(whole)
    assert (again.resumed > 0) == (parts > 1) and at_once.resumed == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.tokens", "whole.tokens"]


def test_parts_of_other_work_are_not_taken(tmp_path: Path) -> None:
    out = tmp_path / "x.tokens"
    subprocess.run([sys.executable, "-c", KILLED, str(out), "3"], capture_output=True)
    assert packed_small(out, seed=7).resumed == 0


def test_shuffled_documents_are_the_same_in_another_order(tmp_path: Path) -> None:
    found = {}
    for name, seed in (("plain", None), ("a", 1), ("b", 1), ("c", 2)):
        packed_small(tmp_path / name, shuffle=seed)
        packed = PackedTokens(tmp_path / name)
        found[name] = [tuple(packed.document(index)) for index in range(len(packed))]
    assert found["a"] == found["b"] != found["c"] and found["a"] != found["plain"]
    assert sorted(found["a"]) == sorted(found["c"]) == sorted(found["plain"])


@pytest.mark.parametrize("shuffle", [None, 5])
def test_rows_have_one_length_and_hold_every_document(tmp_path: Path, shuffle: int | None) -> None:
    out, plain = tmp_path / "rows", tmp_path / "plain"
    packed_small(plain)
    counts = packed_small(out, rows=64, shuffle=shuffle)
    rows, numbers = PackedTokens(out), PackedTokens(documents_of_rows(out))
    assert set(np.diff(rows.offsets)) == {64} and len(rows) == counts.documents == len(numbers)
    pieces: list[tuple[int, ...]] = []
    for index in range(len(rows)):
        row, number = rows.document(index), numbers.document(index)
        pieces += [tuple(row[number == one]) for one in range(1, int(number.max()) + 1)]
    documents = PackedTokens(plain)
    expected = []
    for index in range(len(documents)):
        ids = documents.document(index)
        expected += [tuple(ids[at : at + 64]) for at in range(0, len(ids), 64)]
    assert sorted(pieces) == sorted(expected)


def test_the_command_shuffles_and_makes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer().save(tmp_path / "tokenizer.json")
    folder = tmp_path / "texts"
    folder.mkdir()
    for index, text in enumerate(TEXTS[:20]):
        (folder / f"{index:02}.py").write_text(text)
    command = ["encode", "pack", "-t", str(tmp_path / "tokenizer.json"), "-o", str(tmp_path / "x.tokens"), str(folder)]
    assert main([*command, "--shuffle", "3", "--rows", "32"]) == 0
    assert "rows of 32" in capsys.readouterr().out
    assert set(np.diff(PackedTokens(tmp_path / "x.tokens").offsets)) == {32}
    assert main([*command, "--rows", "32", "--no-end"]) == 2
    assert "filled up with the end-of-text token" in capsys.readouterr().err
    assert main([*command, "--rows", "0"]) == 2
    assert "rows of 0 tokens cannot hold anything" in capsys.readouterr().err
