"""What the compiled module says where there is no GPU: it imports, names the error, and checks arguments."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def module() -> ModuleType:
    for name in ("highrise._cuda", "_cuda"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip("the CUDA module is not built: make gpu-check")


def test_it_imports_without_a_driver_and_says_so(module: ModuleType) -> None:
    status, count = module.device_count()
    assert (status == 0) == (count > 0) or status == 0
    if status:
        assert status in (35, 100)  # no driver, or a driver and no device
        assert "cudaError" in module.error_words(status)
    assert module.ARCHITECTURES.split() == ["80", "90a", "100"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": 0}, "input is a null pointer"),
        ({"packed": 8}, "not a multiple of 16"),
        ({"type": "float32"}, "neither float16 nor bfloat16"),
        ({"k": 40}, "multiple of 32"),
        ({"m": 0}, "at least 1"),
    ],
)
def test_bad_arguments_are_sentences(module: ModuleType, change: dict[str, object], words: str) -> None:
    good = {"input": 16, "packed": 16, "scale": 16, "minimum": 16, "output": 16, "m": 1, "n": 2, "k": 64}
    with pytest.raises(ValueError, match=words):
        module.gemm_int4(**{**good, "type": "float16", **change})


def test_attention_checks_its_heads(module: ModuleType) -> None:
    pointers = dict.fromkeys(("query", "key_pages", "value_pages", "page_table", "lengths", "output", "workspace"), 16)
    sizes = {
        "batch": 1,
        "num_heads": 3,
        "num_kv_heads": 2,
        "head_dim": 64,
        "page_size": 16,
        "max_pages": 1,
        "splits": 1,
    }
    with pytest.raises(ValueError, match="3 heads over 2"):
        module.attention_decode(**pointers, **sizes, scale=1.0, type="float16")
