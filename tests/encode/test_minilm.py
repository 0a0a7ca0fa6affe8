"""MiniLM on the native encoder against transformers on torch, and what batching and threads must not change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from highrise.core.errors import InputError
from highrise.core.native import csrc
from highrise.encode.minilm import MiniLm
from tests.encode.minilm_weights import minilm_folder
from tests.encode.tiny_minilm import write_tiny_minilm

TEXTS = [
    "def read(path):\n    return open(path).read()",
    "how do I open a file?",
    "x",
    "",
    "class Cache:\n" + "    def get(self, key): return self.items[key]\n" * 30,
    "Ünïcode 中文 and more",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_minilm(tmp_path_factory.mktemp("minilm"))


def _reference(folder: Path, texts: list[str], max_tokens: int) -> np.ndarray:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    rows = []
    with torch.no_grad():
        for text in texts:
            hidden = model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(0)
            rows.append((hidden / hidden.norm()).numpy())
    return np.stack(rows)


def test_the_tiny_model_equals_transformers(tiny: Path) -> None:
    ours = MiniLm.load(tiny, max_tokens=40).embed(TEXTS)
    assert (ours * _reference(tiny, TEXTS, 40)).sum(1).min() > 0.9999


@pytest.mark.parametrize("isa", csrc.available_isas())
def test_the_real_model_equals_transformers(isa: str) -> None:
    folder = minilm_folder()
    model = MiniLm.load(folder, isa=isa)
    ours = model.embed(TEXTS)
    assert ours.shape == (len(TEXTS), 384) and ours.dtype == np.float32
    assert (ours * _reference(folder, TEXTS, 128)).sum(1).min() > 0.9999


def test_the_real_model_knows_what_belongs_together() -> None:
    question, file, colour = MiniLm.load(minilm_folder()).embed(
        ["how to read a text file in Python", "open(path).read() returns the content of a file", "blue is a colour"]
    )
    assert question @ file > question @ colour + 0.2


def test_neighbours_in_the_batch_and_threads_change_nothing(tiny: Path) -> None:
    together = MiniLm.load(tiny, max_tokens=40, threads=2).embed(TEXTS * 7)
    model = MiniLm.load(tiny, max_tokens=40, threads=1)
    alone = np.concatenate([model.embed([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, np.tile(alone, (7, 1)))
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows(tiny: Path) -> None:
    assert MiniLm.load(tiny).embed([]).shape == (0, 48)


def test_what_is_not_a_bert_folder_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        MiniLm.load(tmp_path)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "intermediate_size": 100}))
    with pytest.raises(InputError, match=r"intermediate\.dense\.weight should have the shape \(100, 48\)"):
        MiniLm.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(InputError, match="llama"):
        MiniLm.load(tmp_path)
    with pytest.raises(InputError, match="max_tokens is 2"):
        MiniLm.load(tiny, max_tokens=2)
