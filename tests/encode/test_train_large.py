"""Training beyond memory: counts that went through files give the same vocabulary, and a limit on memory holds."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from highrise.cli import main
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import Progress
from highrise.encode import Tokenizer
from highrise.encode.config import TokenizerConfig


def words(count: int, *, different: int, seed: int = 0) -> Iterator[str]:
    """Texts of a thousand words; some words are frequent, many are rare."""
    random = np.random.default_rng(seed)
    letters = random.integers(97, 109, size=(different, 12), dtype=np.uint8)
    lengths = random.integers(2, 12, size=different)
    spelled = [letters[i, : lengths[i]].tobytes().decode() for i in range(different)]
    for _ in range(count // 1000):
        chosen = (different * random.random(1000) ** 4).astype(int)
        yield " ".join(spelled[i] for i in chosen) + "\n"


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least memory holds only 3,000 pieces while counting."""
    monkeypatch.setattr("highrise.encode.train._COUNT_BYTES", (64 << 20) // 3000)
    monkeypatch.setattr("highrise.encode.train._BATCH_CHARACTERS", 20_000)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("threads", [1, 2])
def test_counts_in_files_give_the_same_vocabulary(tmp_path: Path, threads: int) -> None:
    texts = list(words(60_000, different=20_000))
    plain = Tokenizer.train(texts, vocabulary=900, special=["<|end|>"])
    assert Tokenizer.train(texts, vocabulary=900, special=["<|end|>"], memory=64 << 20, threads=threads) == plain
    (tmp_path / "a").write_text("".join(texts[:20]))
    (tmp_path / "b").write_text("".join(texts[20:]))
    with Progress("train", unit="B") as progress:
        files = Tokenizer.train(
            files=[tmp_path / "a", str(tmp_path / "b")], vocabulary=900, special=["<|end|>"], memory=64 << 20,
            threads=threads, progress=progress,
        )  # fmt: skip
    assert files == plain
    assert progress.done == sum(map(len, texts))
    assert Tokenizer.train(texts[:20], files=[tmp_path / "b"], vocabulary=900, special=["<|end|>"]) == plain


@pytest.mark.usefixtures("small_memory")
def test_rare_words_beyond_the_memory_are_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("highrise.encode.train._TRAIN_BYTES", (64 << 20) // 2000)
    texts = list(words(60_000, different=20_000))
    few = Tokenizer.train(texts, vocabulary=900, memory=64 << 20)
    assert few.vocab_size == 900
    said = capsys.readouterr().err
    assert "rare words, at" in said and "did not fit into memory and were left out; the others occur" in said


def test_wrong_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="1000 bytes are too few"):
        Tokenizer.train(["a"], vocabulary=300, memory=1000)
    with pytest.raises(InputError, match="no text to train"):
        Tokenizer.train(vocabulary=300)
    (tmp_path / "bad").write_bytes(b"ok\xff")
    with pytest.raises(InputError, match=r"bad is no UTF-8 text \(.*byte 2"):
        Tokenizer.train(files=[tmp_path / "bad"], vocabulary=300)
    with pytest.raises(ConfigError, match=r'memory = "1M" is too little'):
        TokenizerConfig(memory="1M")
    with pytest.raises(ConfigError, match=r'cannot read "lots" as a size'):
        TokenizerConfig(memory="lots")
    assert main(["encode", "train", "-o", str(tmp_path / "out"), "--memory", "2 apples", str(tmp_path)]) == 2
    assert 'cannot read "2 apples"' in capsys.readouterr().err


def test_the_command_reads_a_large_file_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(words(30_000, different=2000))
    (tmp_path / "text").write_text(text)
    for name, large in (("whole", 1 << 30), ("parts", 1)):
        monkeypatch.setattr("highrise.encode.cli_tokenize._LARGE_BYTES", large)
        arguments = ["encode", "train", "-o", str(tmp_path / name), "--vocabulary", "600", "--memory", "64MiB"]
        assert main([*arguments, str(tmp_path / "text")]) == 0
    assert Tokenizer.from_file(tmp_path / "whole" / "tokenizer.json") == Tokenizer.from_file(
        tmp_path / "parts" / "tokenizer.json"
    )


@pytest.mark.slow
def test_a_gigabyte_is_trained_on_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    """A gigabyte with eight million different words: counting them alone would take more than a gigabyte."""
    program = textwrap.dedent("""
        import json, re, sys
        from pathlib import Path
        from highrise.encode import Tokenizer
        tokenizer = Tokenizer.train(files=[sys.argv[1]], vocabulary=8000, memory=int(sys.argv[2]), threads=2)
        # not getrusage's: that peak begins with what the process that started this one held
        peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
        print(json.dumps([tokenizer.vocab_size, int(peak[1]) * 1024]))
    """)
    random = np.random.default_rng(7)
    size = 0
    with (tmp_path / "text").open("wb") as file:
        while size < 1_000_000_000:
            # A quarter of the words are of eight million, the others of few thousand.
            rare = random.random(1 << 20) < 0.25
            numbers = np.where(rare, random.integers(8_000_000, size=1 << 20), random.integers(4000, size=1 << 20))
            digits = numbers[:, None] * 2654435761 // 26 ** np.arange(8) % 26 + 97
            lines = np.full((1 << 20, 9), 32, np.uint8)
            lines[:, :8] = digits
            lines[::12, 8] = 10
            size += file.write(lines.tobytes())
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "text"), str(700 << 20)],
        capture_output=True, text=True, check=True, timeout=1000,
    )  # fmt: skip
    vocabulary, peak = json.loads(done.stdout)
    print(f"peak {peak:,} bytes", done.stderr)
    assert vocabulary == 8000 and peak < 1_000_000_000, (peak, done.stderr)
