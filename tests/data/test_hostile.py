"""Hostile bytes through whole builds: nothing raises, everything is counted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from highrise.data.build import build_dataset
from highrise.data.config import DataConfig
from tests.data.conftest import module
from tests.data.test_readers import SAMPLES, pdf, tar

ENDINGS = [
    "py",
    "js",
    "ts",
    "tsx",
    "rs",
    "go",
    "java",
    "kt",
    "scala",
    "c",
    "cpp",
    "cs",
    "swift",
    "rb",
    "php",
    "lua",
    "sh",
    "html",
    "css",
    "json",
    "ipynb",
    "pdf",
    "md",
    "rst",
    "txt",
    "xml",
    "yaml",
]


def mutated(data: bytes, generator: random.Random) -> bytes:
    """Some bytes replaced, repeated, cut or swapped for what parsers dislike."""
    odd = (b"\0", b"\xff", b"{" * 300, b"(" * 300, b"<a>" * 200, b"\xf0\x9f\x98\x80")
    odd += (b'"""', b"\\x", b"/*", "\U000df9f5".encode(), b"`" * 99)
    body = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        at = generator.randrange(len(body) + 1)
        kind = generator.randrange(4)
        if kind == 0:
            body[at : at + generator.randint(0, 9)] = generator.randbytes(generator.randint(0, 9))
        elif kind == 1:
            body[at:at] = generator.choice(odd)
        elif kind == 2:
            del body[at : at + generator.randint(0, 200)]
        else:
            body[at:at] = body[generator.randrange(len(body) + 1) :][:100]
    return bytes(body)


def corrupt(folder: Path, count: int, seed: int) -> int:
    """`count` broken files and archives in `folder`; returns how many there are."""
    generator = random.Random(seed)
    book = json.dumps({"cells": [{"cell_type": "code", "source": module(2)}], "metadata": {}}).encode()
    seeds = [
        module(1).encode(),
        b"int main(void) { return f(1, 2); } /* c */\n" * 9,
        b"<p>a</p>" * 60,
        book,
        pdf("words " * 30),
    ]
    (folder / "files").mkdir(parents=True)
    (folder / "packs").mkdir()
    for number in range(count):
        if number % 10:
            path = folder / "files" / f"f{number}.{generator.choice(ENDINGS)}"
            path.write_bytes(mutated(generator.choice(seeds), generator))
        else:
            name = generator.choice(sorted(SAMPLES))
            path = folder / "packs" / (f"{number}-Posts.xml" if name == "Posts.xml" else f"{number}{name[1:]}")
            path.write_bytes(mutated(SAMPLES[name], generator))
    (folder / "files" / "line.js").write_bytes(b"x" * 100_000_000)
    (folder / "packs" / "line.jsonl").write_bytes(b'{"text": "' + b"x" * 100_000_000)
    (folder / "files" / "loop").symlink_to(folder / "files")
    bomb = tar({f"{n}.txt": bytes(9_000_000) for n in range(5)})
    (folder / "packs" / "bomb.tar.gz").write_bytes(bomb)
    return count


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_corrupt_files_never_stop_a_build(count: int, tmp_path: Path) -> None:
    corrupt(tmp_path / "in", count, seed=count)
    config = DataConfig(
        sources=(str(tmp_path / "in" / "files"), f"{tmp_path}/in/packs/*"),
        max_file_bytes=10_000_000,
        max_unpacked_ratio=100,
        file_timeout="20 s",
    )
    counts = build_dataset(config, tmp_path / "out", workers=1)
    dropped = sum(int(value) for name, value in counts.items() if name.startswith("dropped: "))
    assert counts["files"] == int(counts["documents"]) + dropped and int(counts["files"]) > count * 0.9
    assert (
        counts["dropped: bomb"] >= 1
        and counts["dropped: damaged"] >= count // 100
        and counts["dropped: too large"] >= 2
    )
