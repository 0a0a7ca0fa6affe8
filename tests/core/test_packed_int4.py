"""AWQ and GPTQ folders: every weight equals the slow reference, and so do the blocks that the kernels get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from highrise.core.blocks import dequantise
from highrise.core.errors import InputError
from highrise.core.native import csrc
from highrise.core.packed_int4 import Packing, packing_of, unpacked
from highrise.core.safetensors import SafeTensors, write_safetensors
from tests.reference import packed_int4 as reference

ROWS, COLS = 24, 128


def write(path: Path, method: str, group: int, *, symmetric: bool, mixed: bool, from_one: bool) -> np.ndarray:
    """A file with one packed matrix, `m`; its weights by the reference."""
    rng = np.random.default_rng([group, symmetric, mixed])
    groups = COLS // group
    codes = rng.integers(0, 16, (COLS, ROWS))
    zeros = np.full((groups, ROWS), 8) if symmetric else rng.integers(1, 17 if from_one else 16, (groups, ROWS))
    scales = rng.uniform(0.001, 0.02, (groups, ROWS)).astype(np.float16)
    group_of = rng.permutation(COLS) // group if mixed else np.arange(COLS) // group
    tensors: dict[str, np.ndarray] = {"m.scales": scales}
    if method == "awq":
        tensors |= {"m.qweight": reference.pack_awq(codes), "m.qzeros": reference.pack_awq(zeros)}
    else:
        stored = zeros - 1 if from_one else zeros
        tensors |= {"m.qweight": reference.pack_gptq_codes(codes), "m.qzeros": reference.pack_gptq_zeros(stored)}
        tensors["m.g_idx"] = group_of.astype(np.int32)
    write_safetensors(path, tensors)
    return reference.weights(codes, zeros, scales, group_of)


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("method", "mixed", "from_one"),
    [("awq", False, False), ("gptq", False, True), ("gptq", False, False), ("gptq", True, True)],
)  # fmt: skip
def test_every_weight_is_exact(tmp_path: Path, method, group, symmetric, mixed, from_one) -> None:
    path = tmp_path / "model.safetensors"
    expected = write(path, method, group, symmetric=symmetric, mixed=mixed, from_one=from_one)
    tensor = unpacked(SafeTensors(path), Packing(method, group, from_one))["m.weight"]
    assert tensor.shape == (ROWS, COLS)
    assert tensor.type == ("F32" if mixed and group < COLS else "Q4_0" if symmetric else "Q5_0")
    np.testing.assert_array_equal(tensor.dequantise(), expected)
    np.testing.assert_array_equal(dequantise(tensor.raw(), tensor.type).reshape(ROWS, COLS), expected)
    packed = csrc.PackedMatrix(tensor.raw(), tensor.type, ROWS, COLS)
    np.testing.assert_array_equal(packed.unpack(), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "bitsandbytes", "bits": 4}, "is quantised by 'bitsandbytes' to 4 bits; awq and gptq at 4"),
        ({"quant_method": "gptq", "bits": 3}, "is quantised by 'gptq' to 3 bits"),
        ({"quant_method": "awq", "bits": 4, "group_size": 20}, "has the group_size 20; a multiple of 32"),
        ({"quant_method": "awq", "bits": 4, "version": "GEMV"}, "AWQ's version 'gemv'; gemm is read"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "checkpoint_format 'marlin'"),
        ("int4", "has the quantization_config 'int4'"),
    ],
)
def test_other_packings_are_refused_by_name(settings: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        packing_of({"quantization_config": settings}, where="config.json")


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(path, "gptq", 32, symmetric=True, mixed=False, from_one=True)
    with pytest.raises(InputError, match=r"m of 24 x 128 in groups of 64 has qzeros \(4, 3\) and scales \(4, 24\)"):
        unpacked(SafeTensors(path), Packing("gptq", 64, True))
    tensors = {name: np.array(SafeTensors(path).read(name)) for name in SafeTensors(path).tensors}
    write_safetensors(
        tmp_path / "no.safetensors", {name: value for name, value in tensors.items() if "zeros" not in name}
    )
    with pytest.raises(InputError, match=r"m\.qzeros is missing"):
        unpacked(SafeTensors(tmp_path / "no.safetensors"), Packing("gptq", 32, True))
    tensors["m.g_idx"][5] = 9
    write_safetensors(tmp_path / "far.safetensors", tensors)
    with pytest.raises(InputError, match=r"m\.g_idx must name one of 4 groups for 128 columns"):
        unpacked(SafeTensors(tmp_path / "far.safetensors"), Packing("gptq", 32, True))
