"""Packed token files: what is written is read, and damage is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.errors import EncodeError, InputError
from highrise.encode.packed import Batch, PackedTokens, write_packed


def _batch(documents: list[list[int]]) -> Batch:
    ids = np.array([token for document in documents for token in document], dtype=np.uint32)
    return ids, np.cumsum([0, *map(len, documents)], dtype=np.int64)


@settings(max_examples=60)
@given(
    batches=st.lists(st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=5), max_size=4),
    vocab_size=st.sampled_from([256, 65536, 65537, 151936]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[list[int]]], vocab_size: int
) -> None:
    path = tmp_path_factory.mktemp("packed") / "x.tokens"
    documents = [document for batch in batches for document in batch]
    counts = write_packed(path, map(_batch, batches), vocab_size)
    packed = PackedTokens(path)
    assert counts == (sum(map(len, documents)), len(documents)) == (len(packed.tokens), len(packed))
    assert [packed.document(index).tolist() for index in range(len(packed))] == documents
    assert packed.tokens.dtype == (np.uint16 if vocab_size <= 65536 else np.uint32)
    assert packed.vocab_size == vocab_size and packed.offsets.dtype == np.int64


def test_tokens_are_mapped_and_cannot_be_changed(tmp_path: Path) -> None:
    write_packed(tmp_path / "x", [_batch([[1, 2, 3]])], 300)
    packed = PackedTokens(tmp_path / "x")
    assert isinstance(packed.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        packed.tokens[0] = 5


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with pytest.raises(InputError, match="cannot read the token file"):
        PackedTokens(path)
    path.write_bytes(b"something else, longer than a header would be, and then some more of it")
    with pytest.raises(InputError, match="is no packed token file"):
        PackedTokens(path)
    write_packed(path, [_batch([[1, 2, 3]])], 300)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="is not whole"):
        PackedTokens(path)


def test_a_stopped_writer_leaves_nothing(tmp_path: Path) -> None:
    def stopped() -> Iterator[Batch]:
        yield _batch([[1]])
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_packed(tmp_path / "x", stopped(), 300)
    assert list(tmp_path.iterdir()) == []


def test_wrong_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="token id 300 does not belong to a vocabulary of 300"):
        write_packed(tmp_path / "x", [_batch([[300]])], 300)
    with pytest.raises(EncodeError, match="the offsets of a batch must run from 0 to its 1 ids"):
        write_packed(tmp_path / "x", [(np.zeros(1, np.uint32), np.array([0, 2]))], 300)
    with pytest.raises(InputError, match="a vocabulary of 0 cannot be packed"):
        write_packed(tmp_path / "x", [], 0)
