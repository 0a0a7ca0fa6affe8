"""Every instruction set the kernels know, as test parameters, skipped with the reason where one is absent."""

from __future__ import annotations

import pytest

from highrise.core.native import csrc

ALL = ("portable", "avx2", "avx512", "avx512vnni", "amx")
AVAILABLE = tuple(csrc.available_isas())

each_isa = pytest.mark.parametrize(
    "isa",
    [
        pytest.param(
            isa, marks=pytest.mark.skipif(isa not in AVAILABLE, reason=f"this CPU or build has no {isa} kernels")
        )
        for isa in ALL
    ],
)
