"""safetensors: both ways equal to the ecosystem's library; damaged files are one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from highrise.core.errors import InputError
from highrise.core.safetensors import SafeTensors, write_safetensors

ARRAYS = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"),
    hnp.arrays(
        dtype=st.sampled_from([np.float32, np.float16, np.int64, np.uint8]),
        shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
        elements={"allow_nan": False},
    ),
    max_size=4,
)


@settings(max_examples=30)
@given(arrays=ARRAYS)
def test_ours_loads_in_theirs_and_theirs_in_ours(tmp_path_factory: pytest.TempPathFactory, arrays: dict) -> None:
    folder = tmp_path_factory.mktemp("safetensors")
    write_safetensors(folder / "ours", arrays, metadata={"format": "pt"})
    theirs = safetensors.numpy.load_file(folder / "ours")
    safetensors.numpy.save_file(arrays, folder / "theirs")
    ours = SafeTensors(folder / "theirs")
    assert set(theirs) == set(ours.tensors) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours.read(name), array)
        assert ours.read(name).dtype == array.dtype


def test_bfloat16_bits_and_metadata(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [0.0, 3.0]], dtype=np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    write_safetensors(tmp_path / "x", {"w": bits}, metadata={"a": "b"}, uint16_is="BF16")
    file = SafeTensors(tmp_path / "x")
    assert file.metadata == {"a": "b"}
    assert file.tensors["w"].dtype == "BF16"
    np.testing.assert_array_equal(file.read("w"), values)


def test_every_truncation_is_one_sentence(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x", {"w": np.arange(6, dtype=np.float32)})
    whole = (tmp_path / "x").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(InputError, match="cut"):
            SafeTensors(tmp_path / "cut")
