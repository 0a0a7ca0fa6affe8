"""Pretraining: the corpus, a run from end to end, and a resume that changes no bit, after a stop or a SIGKILL."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from highrise.core.errors import ConfigError, InputError
from highrise.encode import Tokenizer
from highrise.encode.packed import PackedTokens
from highrise.train.chart import read_metrics
from highrise.train.config import TrainConfig, derive_shape
from highrise.train.corpus import TRAIN_FILE, VALIDATION_FILE, build_corpus
from highrise.train.evaluate import bits_per_byte
from highrise.train.model import Decoder
from highrise.train.pretrain import draw_batches, pretrain
from highrise.train.schedule import rate_at
from highrise.train.weights_io import load_decoder
from tests.train.small import TINY, documents, tokenizer_folder


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(TINY, documents(), tokenizer_folder(folder / "tokenizer"), folder / "tokens")
    return folder / "tokens"


def _losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def _silent(_: str) -> None:
    return


def test_corpus_holds_whole_samples_and_the_held_out_texts(tokens: Path) -> None:
    tokenizer = Tokenizer.from_file(tokens / "tokenizer.json")
    packed, held_out = PackedTokens(tokens / TRAIN_FILE), PackedTokens(tokens / VALIDATION_FILE)
    end = tokenizer.special_tokens["<|endoftext|>"]
    prefix, suffix, middle = (tokenizer.special_tokens[f"<|fim_{name}|>"] for name in ("prefix", "suffix", "middle"))
    texts = [document.text for document in documents() if document.split == "validation"]
    assert [tokenizer.decode(held_out.document(i)[:-1].astype(np.uint32)) for i in range(len(held_out))] == texts
    whole = "\n".join(document.text for document in documents())
    num_infill = 0
    for index in range(len(packed)):
        ids = packed.document(index).tolist()
        if ids[0] != prefix:
            continue
        num_infill += 1
        assert ids[-1] == end
        at, then = ids.index(suffix), ids.index(middle)
        parts = ids[1:at], ids[then + 1 : -1], ids[at + 1 : then]
        assert "".join(tokenizer.decode(part) for part in parts) in whole
    assert 0.3 < num_infill / len(packed) < 0.7


def test_run_learns_and_leaves_a_model_folder(tokens: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(TINY, tokens=256 * 40)
    counts = pretrain(config, tokens, tmp_path, say=_silent)
    losses = _losses(tmp_path)
    assert len(losses) == 40 and losses[-1] < 0.6 * losses[0]
    assert float(counts["validation_loss"]) < 0.6 * losses[0]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "checkpoint.pt").exists()
    tokenizer = Tokenizer.for_weights(tmp_path)
    texts = [document.text for document in documents() if document.split == "validation"]
    trained = bits_per_byte(load_decoder(tmp_path), tokenizer, texts, sequence=64)
    fresh = bits_per_byte(Decoder(derive_shape(TINY, vocab_size=tokenizer.vocab_size)), tokenizer, texts, sequence=64)
    assert trained.bits_per_byte < 0.6 * fresh.bits_per_byte
    assert float(counts["bits_per_byte"]) == pytest.approx(trained.bits_per_byte, rel=0.1)
    assert trained.num_bytes == sum(len(text.encode()) for text in texts)
    assert fresh.loss == pytest.approx(np.log(tokenizer.vocab_size), rel=0.05)


def test_resumed_losses_are_the_same_bits(tokens: Path, tmp_path: Path) -> None:
    pretrain(TINY, tokens, tmp_path / "whole", say=_silent)
    always = msgspec.structs.replace(TINY, checkpoint_every="1 ms")
    pretrain(always, tokens, tmp_path / "parts", say=_silent, stop_after=5)
    assert len(_losses(tmp_path / "parts")) == 5
    pretrain(always, tokens, tmp_path / "parts", say=_silent)
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")
    for name in ("model.safetensors",):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_sigkill_loses_nothing(tokens: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(TINY, tokens=256 * 300, checkpoint_every="1 ms")
    program = (
        "import sys, msgspec; from pathlib import Path; from highrise.train.config import TrainConfig;"
        "from highrise.train.pretrain import pretrain;"
        "pretrain(msgspec.json.decode(sys.argv[1], type=TrainConfig), Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [msgspec.json.encode(config).decode(), str(tokens), str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(_losses(tmp_path / "killed")) < 8 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    pretrain(config, tokens, tmp_path / "killed", say=_silent, stop_after=60)
    pretrain(config, tokens, tmp_path / "whole", say=_silent, stop_after=60)
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")


def test_a_budget_ends_the_run(tokens: Path, tmp_path: Path) -> None:
    config = msgspec.structs.replace(TINY, tokens=None, budget="2 s")
    started = time.monotonic()
    counts = pretrain(config, tokens, tmp_path, say=_silent)
    assert int(counts["steps"]) >= 3 and time.monotonic() - started < 90  # the looks at held-out text come on top
    rates = [line["rate"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert rates[-1] < 0.3 * max(rates)


def test_a_budget_shorter_than_a_step_makes_the_step_smaller(tokens: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = msgspec.structs.replace(TINY, tokens=None, budget="300 ms", batch_tokens=64 * 2000, micro_batch=2)
    counts = pretrain(config, tokens, tmp_path, say=said.append)
    assert 64 <= int(counts["tokens"]) < 64 * 2000 and any("so that about" in text for text in said)


def test_nothing_held_out_is_said_and_no_number_is_made_up(tmp_path: Path) -> None:
    said: list[str] = []
    only = [document for document in documents() if document.split == "train"]
    build_corpus(TINY, only, tokenizer_folder(tmp_path / "tokenizer"), tmp_path / "tokens")
    config = msgspec.structs.replace(TINY, tokens=256 * 2)
    counts = pretrain(config, tmp_path / "tokens", tmp_path / "out", say=said.append)
    assert "validation_loss" not in counts and "bits_per_byte" not in counts
    assert "no document is held out" in said[-1] and "nan" not in said[-1]


def test_windows_depend_on_seed_and_step_alone() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    first, again, other = (
        draw_batches(tokens, sequence=8, windows=5, micro_batch=2, seed=3, step=step) for step in (7, 7, 8)
    )
    assert [len(batch.ids) for batch in first] == [2, 2, 1]
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].ids, other[0].ids)
    assert all(torch.equal(batch.ids + 1, batch.targets) for batch in first)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_rate_rises_stays_and_falls(decay: str) -> None:
    config = msgspec.structs.replace(TINY, decay=decay, warmup=0.1, learning_rate=1.0, final_rate=0.1)
    rates = [rate_at(config, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[49 if decay == "linear" else 10] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base": "smollm2-135m", "depth": 4}, "base = 'smollm2-135m' and depth = 4"),
        ({"hidden_size": 100, "num_attention_heads": 7}, "100 cannot be divided among 7 attention heads; try 5"),
        ({"batch_tokens": 1000, "sequence": 512}, "try 1024"),
        ({"infill_share": 1.5}, "share between 0 and 1"),
        ({"budget": "soon"}, "soon"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"warmup": 0.6, "decay_share": 0.6}, "together more"),
        ({"depth": 0}, "depth is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"batch_tokens": -512}, "batch_tokens is -512"),
        ({"seed": -1}, "seed is -1"),
        ({"evaluation_documents": -1}, "evaluation_documents is -1"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": math.inf}, "learning_rate is inf"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip": math.nan}, "clip is nan"),
        ({"beta2": 1.0}, "beta2 is 1.0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 1_000_000}, "from 1 to 1,024"),
    ],
)
def test_contradictions_are_one_sentence(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        msgspec.convert(values, TrainConfig)


def test_a_short_run_rises_too() -> None:
    config = msgspec.structs.replace(TINY, warmup=0.03, learning_rate=1.0)
    assert [rate_at(config, step, 40) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rate_at(msgspec.structs.replace(config, warmup=0.0), 0, 40) == 1.0


def test_too_little_text_is_refused(tokens: Path, tmp_path: Path) -> None:
    long = msgspec.structs.replace(TINY, sequence=100_000, batch_tokens=100_000)
    with pytest.raises(InputError, match="give more text"):
        pretrain(long, tokens, tmp_path, say=_silent)


def test_sizes_follow_from_depth() -> None:
    shape = derive_shape(TrainConfig(depth=4), vocab_size=4096)
    assert (shape.hidden_size, shape.num_attention_heads, shape.num_key_value_heads) == (256, 4, 2)
    assert 5e6 < shape.num_parameters < 5.5e6
