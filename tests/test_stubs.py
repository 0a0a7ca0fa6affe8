"""The stub of the C++ module says what the module has; and a difference is found when there is one."""

from __future__ import annotations

import pytest

pytest.importorskip("mypy.stubtest", reason="mypy is not installed")

from scripts.stubtest import STUB, signatures_differ

from highrise.core.native import csrc


def test_the_stub_agrees() -> None:
    assert signatures_differ(STUB.read_text(), csrc) == []


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("def rotate(x: _Floats, cosine", "def rotate(y: _Floats, cosine", "rotate is written as (y, cosine"),
        (
            'isa: str = "auto") -> _Floats: ...\ndef swiglu',
            'isa: str = "avx2") -> _Floats: ...\ndef swiglu',
            "isa='avx2'",
        ),
        ("page_size: int = 16", "page_size: int = 32", "Decoder.__init__ is written as"),
        ("def missing(self)", "def absent(self)", "Decoder.absent has no signature"),
        ("scale: float, exact: bool = False", "scale: float", "Decoder.set_adapter is written as"),
    ],
)
def test_a_difference_is_found(right: str, wrong: str, said: str) -> None:
    stub = STUB.read_text()
    assert right in stub
    assert any(said in line for line in signatures_differ(stub.replace(right, wrong, 1), csrc))
