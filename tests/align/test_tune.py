"""Tuning from end to end on a small model: kept when the held-out loss falls, else not; skipped, killed, refused."""

from __future__ import annotations

import itertools
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from highrise.align import tune as tuning
from highrise.align.choice import choose
from highrise.align.config import DpoConfig, LoraConfig, MethodConfig, SftConfig
from highrise.align.lora import load_adapter
from highrise.align.merge import merge
from highrise.align.tune import tune
from highrise.compute.machine import Machine, detect
from highrise.core.config import fingerprint
from highrise.core.errors import ConfigError
from highrise.data.shards import SCHEMA
from highrise.encode import Tokenizer
from highrise.train.config import derive_shape
from highrise.train.model import Decoder
from highrise.train.weights_io import load_decoder, save_decoder
from tests.train.small import TINY, documents, tokenizer_folder

SFT = SftConfig(
    budget="3 s",
    sequence=256,
    batch_tokens=512,
    learning_rate=1e-2,
    lora=LoraConfig(rank=8, alpha=16.0),
    precision="float32",
    threads=1,
    evaluation_samples=8,
    minimum_tokens=1,
)


def _silent(_: str) -> None:
    return


@pytest.fixture(scope="module")
def machine() -> Machine:
    return detect()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer_folder(folder)
    torch.manual_seed(0)
    config = msgspec.structs.replace(TINY, sequence=512, batch_tokens=512)
    vocabulary = Tokenizer.from_file(folder / "tokenizer.json").vocab_size
    save_decoder(Decoder(derive_shape(config, vocab_size=vocabulary)), folder, tokenizer_files_from=folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "shards").mkdir()
    rows = [msgspec.to_builtins(document) for document in documents()]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "shards" / "00000.parquet")
    return folder


@pytest.fixture(scope="module")
def tuned(
    base: Path, data: Path, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int | float | str]]:
    """A folder with what tuning left, and merged/; the counts."""
    folder = tmp_path_factory.mktemp("tuned")
    counts = tune([SFT], base, data, folder, machine, say=_silent)
    merge(base, folder / "adapter", folder / "merged", dtype="float32")
    return folder, counts


def test_sft_lowers_the_loss_and_the_adapter_merges(
    base: Path, tuned: tuple[Path, dict[str, int | float | str]]
) -> None:
    tmp_path, counts = tuned
    assert counts["kept"] == 1 and float(counts["sft_after"]) < float(counts["sft_before"]) - 0.1
    card = (tmp_path / "CARD.md").read_text()
    assert "| sft |" in card and "yes" in card and not (tmp_path / "checkpoint.pt").exists()
    apart = load_decoder(base)
    load_adapter(apart, tmp_path / "adapter")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(load_decoder(tmp_path / "merged")(ids), apart(ids), rtol=1e-4, atol=1e-5)
    assert (tmp_path / "merged" / "tokenizer_config.json").exists()


def test_what_does_not_help_is_not_kept(
    tuned: tuple[Path, dict[str, int | float | str]], data: Path, machine: Machine, tmp_path: Path
) -> None:
    # On weights that have learnt something: random ones are as good as uniform, and no rate makes them much worse.
    ruinous = msgspec.structs.replace(SFT, learning_rate=50.0, budget="1 s")
    counts = tune([ruinous], tuned[0] / "merged", data, tmp_path, machine, say=_silent)
    assert counts["kept"] == 0 and not (tmp_path / "adapter").exists()
    assert "stay as they were" in (tmp_path / "CARD.md").read_text()


def test_dpo_after_sft_on_one_adapter(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    values = {
        name: getattr(SFT, name)
        for name in ("sequence", "lora", "precision", "threads", "evaluation_samples", "minimum_tokens")
    }
    dpo = DpoConfig(budget="5 s", learning_rate=5e-3, batch_tokens=512, **values)
    counts = tune([SFT, dpo], base, data, tmp_path, machine, say=_silent)
    assert float(counts["dpo_before"]) == pytest.approx(0.6931, abs=1e-3)
    assert float(counts["dpo_after"]) < float(counts["dpo_before"])


def test_too_few_tokens_are_skipped_with_a_sentence(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    said: list[str] = []
    never = msgspec.structs.replace(SFT, minimum_tokens=10**12)
    counts = tune([never], base, data, tmp_path, machine, say=said.append)
    assert counts["kept"] == 0 and "teach nothing" in said[0]
    assert "skipped" in (tmp_path / "CARD.md").read_text()


def test_measured_too_slow_is_skipped_after_a_few_steps(
    base: Path, data: Path, machine: Machine, tmp_path: Path
) -> None:
    said: list[str] = []
    slow = msgspec.structs.replace(SFT, budget="1 s", minimum_tokens=2_000_000)
    fast = msgspec.structs.replace(machine, matmul_flops=1e15)
    counts = tune([slow], base, data, tmp_path, fast, say=said.append)
    assert counts["kept"] == 0 and "measured" in said[-1] and "teach nothing" in said[-1]


def test_the_budget_holds_and_the_card_tells_kinds_apart(tuned: tuple[Path, dict[str, int | float | str]]) -> None:
    card = (tuned[0] / "CARD.md").read_text()
    assert "| infill code |" in card and "| held-out samples |" in card
    assert float(tuned[1]["sft_seconds"]) < 30  # 3 asked for; what a step takes beside other work is not bounded
    assert int(tuned[1]["sft_planned"]) > 0


def test_feedback_is_looked_at_before_anything_else(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    never = DpoConfig(feedback=str(tmp_path / "absent.jsonl"), minimum_tokens=10**12)
    with pytest.raises(ConfigError, match="cannot read"):
        tune([never], base, data, tmp_path / "out", machine, say=_silent)


def test_sigkill_then_goes_on(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    config = msgspec.structs.replace(SFT, budget="8 s", checkpoint_every="1 ms")
    program = (
        "import sys, msgspec; from pathlib import Path; from highrise.align.config import SftConfig;"
        "from highrise.align.tune import tune;"
        "tune([msgspec.json.decode(sys.argv[1], type=SftConfig)], *map(Path, sys.argv[2:]))"
    )
    arguments = [msgspec.json.encode(config).decode(), str(base), str(data), str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "checkpoint.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "adapter").exists()
    said: list[str] = []
    counts = tune([config], base, data, tmp_path, machine, say=said.append)
    assert any("goes on after" in sentence for sentence in said)
    assert counts["kept"] == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"method": "ppo"}, "ppo"),
        ({"method": "dpo", "feedback": ""}, "DPO needs pairs"),
        ({"method": "dpo", "beta": 0.0}, "beta is 0"),
        ({"method": "sft", "beta": 0.1}, "unknown field `beta`"),
        ({"method": "sft", "lora": {"rank": 0}}, "rank is 0"),
        ({"method": "sft", "lora": {"targets": ["lm_head"]}}, "choose among"),
        ({"method": "sft", "budget": "long"}, "long"),
        ({"method": "sft", "learning_rate": math.nan}, "learning_rate is nan"),
        ({"method": "sft", "seed": -1}, "seed is -1"),
        ({"method": "sft", "threads": 1_000_000}, "from 1 to 1,024"),
        ({"method": "sft", "lora": {"alpha": math.inf}}, "alpha is inf"),
        ({"method": "dpo", "beta": math.nan}, "beta is nan"),
    ],
)
def test_bad_methods_are_one_sentence(values: dict[str, object], words: str) -> None:
    from highrise.core.config import convert

    with pytest.raises(ConfigError, match=words):
        convert(values, MethodConfig, where="align")


def test_dpo_without_pairs_is_refused(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    empty = tmp_path / "pairs.jsonl"
    empty.write_text("\n")
    config = DpoConfig(feedback=str(empty), minimum_tokens=0, precision="float32", threads=1)
    with pytest.raises(ConfigError, match="DPO has no pairs"):
        tune([config], base, data, tmp_path / "out", machine, say=_silent)


def test_methods_share_one_adapter(base: Path, data: Path, machine: Machine, tmp_path: Path) -> None:
    other = msgspec.structs.replace(SFT, lora=LoraConfig(rank=2))
    with pytest.raises(ConfigError, match="share one adapter"):
        tune(list(itertools.chain([SFT], [other])), base, data, tmp_path, machine, say=_silent)


def test_prose_alone_does_not_judge_code(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    rows = []
    for index, document in enumerate(documents()):
        row = msgspec.to_builtins(document)
        own = document.split == "train" or index % 16 == 0
        if own and document.split == "validation":
            row |= {"language": "markdown", "path": f"docs/{index}.md", "text": document.text * 20}
        rows.append(row | {"own": own})
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "shards" / "00000.parquet")
    choice = choose(tmp_path)
    assert {document.language for document in choice.held_out} == {"markdown", "python"}
    assert not {document.path for document in choice.held_out} & {document.path for document in choice.train}
    assert {document.path for document in choice.held_out if document.own and document.language == "python"}
    assert len(choice.train) > 25


def test_a_number_written_as_an_integer_is_the_same_setting() -> None:
    one, other = (msgspec.structs.replace(SFT, lora=LoraConfig(rank=8, alpha=alpha)) for alpha in (16, 16.0))
    assert fingerprint(tuning._normal([one])) == fingerprint(tuning._normal([other]))
