"""GGUF: metadata and every block format equal the ecosystem's reader; damaged files are one sentence."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.blocks import BLOCKS, dequantise
from highrise.core.errors import InputError
from highrise.core.gguf import Gguf, open_gguf

SOME_FLOAT16 = np.array([0.0, 0.5, -0.25, 1.5, 0.001], dtype=np.float16)


def random_blocks(kind: str, count: int, seed: int) -> np.ndarray:
    """Random bytes, with finite float16 where the format keeps its scales."""
    block = BLOCKS[kind]
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, size=(count, block.num_bytes), dtype=np.uint8)
    places = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0]}
    places |= {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "F16": [0], "BF16": [0]}
    places |= {"IQ4_NL": [0], "IQ4_XS": [0]}
    for at in places.get(kind, []):
        raw[:, at : at + 2] = generator.choice(SOME_FLOAT16, size=count).view(np.uint8).reshape(-1, 2)
    if kind == "F32":
        raw[:] = generator.standard_normal(count).astype(np.float32).view(np.uint8).reshape(raw.shape)
    return raw


@pytest.mark.parametrize("kind", sorted(BLOCKS))
@settings(max_examples=10)
@given(count=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_dequantise_equals_the_gguf_package(kind: str, count: int, seed: int) -> None:
    raw = random_blocks(kind, count, seed)
    expected = gguf.quants.dequantize(raw, Type[kind]).reshape(-1)
    np.testing.assert_array_equal(dequantise(raw.reshape(-1), kind), expected)


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("some.number", 7)
    writer.add_bool("some.flag", True)
    writer.add_float32("some.float", 0.5)
    writer.add_array("some.strings", ["a", "größe", ""])
    writer.add_array("some.numbers", [1, -2, 3])
    writer.add_tensor("matrix", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_held_file_is_read_once_and_a_changed_one_again(small_file: Path) -> None:
    held = open_gguf(small_file)
    assert open_gguf(small_file) is held and held.metadata == Gguf(small_file).metadata
    small_file.write_bytes(small_file.read_bytes() + bytes(32))
    assert open_gguf(small_file) is not held
    with pytest.raises(InputError, match="cannot read the weights"):
        open_gguf(small_file.with_name("missing.gguf"))


def test_metadata_and_tensors(small_file: Path) -> None:
    file = Gguf(small_file)
    assert file.metadata["general.architecture"] == "llama"
    assert file.metadata["some.number"] == 7
    assert file.metadata["some.flag"] is True
    assert file.metadata["some.float"] == 0.5
    assert file.metadata["some.strings"] == ["a", "größe", ""]
    assert file.metadata["some.numbers"] == [1, -2, 3]
    assert file.tensors["matrix"].shape == (3, 4)
    values = dequantise(file.read("matrix"), "F32").reshape(3, 4)
    np.testing.assert_array_equal(values, np.arange(12, dtype=np.float32).reshape(3, 4))


def test_every_truncation_is_one_sentence(small_file: Path, tmp_path: Path) -> None:
    whole = small_file.read_bytes()
    end = Gguf(small_file).tensors["matrix"]
    for length in range(0, end.offset + end.num_bytes):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError) as raised:
            Gguf(cut)
        assert str(cut) in str(raised.value)
        assert raised.value.exit_code == 2


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04 not a model")
    with pytest.raises(InputError, match="does not begin with the letters GGUF"):
        Gguf(path)
    with pytest.raises(InputError, match="cannot read the weights"):
        Gguf(tmp_path / "absent.gguf")
