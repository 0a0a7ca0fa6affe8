"""A file cut in parts is split into the same pieces as the whole, under every pattern; and nothing of it is lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highrise.core.errors import InputError
from highrise.core.native import rust
from highrise.encode.text_files import flat_parts

PIECES = ["a", "B", "7", "12345", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", ".", "/", "#", "'s", "'S", "_", "é",
          "中", "\u3000", "\u0085", "x\n", "x\ny", ".\n", ".\n/", "/\n9", " \nz", "\u00a0\n", "😀"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def parts_of(path: Path, **sizes: int) -> list[bytes]:
    return [
        data[start:end].tobytes()
        for data, offsets in flat_parts(path, **sizes)
        for start, end in itertools.pairwise(offsets)
    ]


@given(text=TEXTS, block=st.integers(1, 30), part=st.integers(1, 12))
def test_parts_have_the_pieces_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, text: str, block: int, part: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "text"
    path.write_bytes(text.encode())
    parts = parts_of(path, block_bytes=block, part_bytes=part)
    assert b"".join(parts) == text.encode()
    for scheme in rust.split_schemes():
        ends: list[int] = []
        for one in parts:
            start = ends[-1] if ends else 0
            ends += [start + end for end in rust.split_pieces(one.decode(), scheme)]
        assert ends == rust.split_pieces(text, scheme), scheme


def test_a_large_file_comes_in_blocks(tmp_path: Path) -> None:
    lines = "".join(f"line {number} of a file\n" for number in range(20_000))
    (tmp_path / "text").write_text(lines)
    blocks = list(flat_parts(tmp_path / "text", block_bytes=1 << 16, part_bytes=1 << 12))
    assert len(blocks) <= len(lines) // (1 << 16) + 2 and max(len(data) for data, _ in blocks) < 3 << 15
    assert min(np.diff(offsets)[:-1].min() for _, offsets in blocks if len(offsets) > 2) >= 1 << 12
    (tmp_path / "one").write_bytes(b"x" * 300_000)  # nowhere to cut
    assert [len(part) for part in parts_of(tmp_path / "one", block_bytes=1 << 16)] == [300_000]
    (tmp_path / "none").write_bytes(b"")
    assert parts_of(tmp_path / "none") == []
    with pytest.raises(InputError, match="cannot read"):
        list(flat_parts(tmp_path / "missing"))
