"""What the tests of floors 4 and 5 share: documents, a small vocabulary, a small run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from highrise.core.document import Document
from highrise.encode import Tokenizer
from highrise.encode.config import DEFAULT_SPECIALS
from highrise.train.config import TrainConfig

NAMES = ["alpha", "beta", "gamma", "delta", "total", "count", "items", "value", "index", "result"]


def documents(number: int = 40) -> Iterator[Document]:
    """Regular Python files; every eighth is held out."""
    for index in range(number):
        lines = ['"""A module of arithmetic."""', ""]
        for step in range(6):
            a, b = NAMES[(index + step) % 10], NAMES[(3 * index + 7 * step + 1) % 10]
            lines += [
                f"def add_{a}_{b}(first, second):",
                f'    """Return the sum of {a} and {b}, both of them numbers."""',
                f"    {a} = first + {index % 5}",
                f"    {b} = second",
                f"    return {a} + {b}",
                "",
                "",
            ]
        text = "\n".join(lines)
        yield Document(
            text=text,
            path=f"package/module_{index}.py",
            source=".",
            repository="repository",
            language="python",
            license="MIT",
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            quality=1.0,
            own=True,
            split="validation" if index % 8 == 0 else "train",
        )


def tokenizer_folder(folder: Path) -> Path:
    """A folder with the tokenizer.json of a vocabulary of 400 ids."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [document.text for document in documents()]
    Tokenizer.train(texts, vocabulary=400, special=DEFAULT_SPECIALS).save(folder / "tokenizer.json")
    return folder


TINY = TrainConfig(
    depth=1,
    hidden_size=32,
    num_attention_heads=2,
    sequence=64,
    batch_tokens=256,
    micro_batch=2,
    tokens=256 * 12,
    learning_rate=1e-2,
    precision="float32",
    device="cpu",
    threads=1,
)
