"""HQQ, AWQ and GPTQ agree with slow versions of what was published, and do what they promise: outputs come nearer."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.blocks import dequantise
from highrise.core.errors import InputError
from highrise.serve.quantise_awq import activation_scales
from highrise.serve.quantise_blocks import GROUP, Kind, Rounded, round_matrix
from highrise.serve.quantise_gptq import gptq
from tests.reference import quantisers as reference

KINDS: list[Kind] = ["Q4_0", "Q4_1", "Q8_0"]


def correlated(seed: int, tokens: int, cols: int) -> np.ndarray:
    """Inputs that share a few directions, some columns much larger than others, as in a decoder."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((tokens, 4)) @ rng.standard_normal((4, cols))
    sizes = np.exp(rng.standard_normal(cols))
    return ((shared + rng.standard_normal((tokens, cols))) * sizes).astype(np.float32)


def weights(seed: int, rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, (rows, cols)).astype(np.float32)


def output_error(rounded: Rounded, matrix: np.ndarray, inputs: np.ndarray) -> float:
    return float(np.square(inputs @ (rounded.values() - matrix).T).sum())


@settings(max_examples=30)
@given(kind=st.sampled_from(KINDS), rows=st.integers(1, 4), groups=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_blocks_hold_what_the_codes_stand_for(kind: Kind, rows: int, groups: int, seed: int) -> None:
    for rounding in ("round", "clip", "hqq"):
        rounded = round_matrix(weights(seed, rows, GROUP * groups), kind, rounding)
        raw = rounded.blocks().reshape(-1)
        np.testing.assert_allclose(dequantise(raw, kind), rounded.values().reshape(-1), rtol=1e-6, atol=1e-6)
        theirs = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind]).reshape(-1)
        np.testing.assert_array_equal(dequantise(raw, kind), theirs)


@settings(max_examples=20)
@given(rows=st.integers(1, 6), groups=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_gptq_is_the_published_one_on_its_own_lines(rows: int, groups: int, seed: int) -> None:
    matrix, inputs = weights(seed, rows, GROUP * groups), correlated(seed + 1, 400, GROUP * groups)
    moment = inputs.T @ inputs
    got = gptq(matrix, moment, "Q4_1")
    scales, minima = (np.repeat(part, GROUP, axis=1).astype(np.float64) for part in (got.scales, got.minima))
    held = got.codes * scales + minima
    wanted = reference.gptq_wanted(matrix, moment, held)
    nearest = reference.nearest(wanted, scales, minima) * scales + minima
    assert np.all(np.abs(held - wanted) <= np.abs(nearest - wanted) + 0.02 * np.abs(scales))


@settings(max_examples=15)
@given(kind=st.sampled_from(["Q4_0", "Q4_1"]), seed=st.integers(0, 2**32 - 1))
def test_over_a_text_outputs_come_nearer(kind: Kind, seed: int) -> None:
    matrix, inputs = weights(seed, 24, 4 * GROUP), correlated(seed + 1, 600, 4 * GROUP)
    moment = inputs.T @ inputs
    blocks = np.stack([moment[at : at + GROUP, at : at + GROUP] for at in range(0, 4 * GROUP, GROUP)])
    plain = output_error(round_matrix(matrix, kind, "round"), matrix, inputs)
    compensated = output_error(gptq(matrix, moment, kind), matrix, inputs)
    assert compensated < 0.8 * plain
    clipped = round_matrix(matrix, kind, "clip", blocks)
    for at in range(0, 4 * GROUP, GROUP):
        group = slice(at, at + GROUP)
        errors = [
            np.square(inputs[:, group] @ (one.values() - matrix)[:, group].T).sum()
            for one in (clipped, round_matrix(matrix, kind, "round"))
        ]
        assert errors[0] <= errors[1] * 1.001


def test_columns_without_inputs_are_rounded_and_nonsense_is_refused() -> None:
    matrix, inputs = weights(3, 5, 2 * GROUP), correlated(4, 200, 2 * GROUP)
    inputs[:, [0, 7, 40]] = 0
    got = gptq(matrix, inputs.T @ inputs, "Q4_1")
    assert np.isfinite(got.values()).all()
    assert np.abs(got.values() - matrix)[:, [0, 7, 40]].max() <= got.scales.max()
    with pytest.raises(InputError, match="inputs that are no numbers"):
        gptq(matrix, np.full((64, 64), np.nan, np.float32), "Q4_1")


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_awq_finds_the_power_that_the_slow_search_finds(seed: int) -> None:
    inputs = correlated(seed, 100, 2 * GROUP)
    matrices = [weights(seed + 1, 8, 2 * GROUP), weights(seed + 2, 4, 2 * GROUP)]
    got = activation_scales(inputs, matrices, np.arange(2 * GROUP), ["Q4_1", "Q4_1"])
    _, expected = reference.awq_power(inputs.astype(np.float64), [matrix.astype(np.float64) for matrix in matrices])

    def error(scale: np.ndarray) -> float:
        held = (reference.rounded(matrix.astype(np.float64) * scale) / scale - matrix for matrix in matrices)
        return float(sum(np.square(inputs @ off.T).sum() for off in held))

    assert error(got.astype(np.float64)) <= 1.01 * error(expected)


def test_columns_of_one_source_share_a_scale() -> None:
    columns = np.arange(64) % 32
    got = activation_scales(correlated(1, 100, 64), [weights(2, 8, 64)], columns, ["Q4_1"])
    np.testing.assert_array_equal(got[:32], got[32:])
    assert got.max() > got.min()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_hqq_ends_where_the_slow_one_does(seed: int) -> None:
    x = weights(seed, 1, GROUP)
    got = round_matrix(x, "Q4_1", "hqq")
    steps = np.full(GROUP, float(got.scales[0, 0]))

    def error(minimum: float) -> float:
        held = reference.nearest(x[0], steps, np.full(GROUP, minimum)) * steps + minimum
        return float(np.abs(held - x[0]).mean())

    errors = [error(minimum) for minimum in reference.hqq_group(x[0].astype(np.float64), steps[0])]
    stop = next((at for at in range(1, len(errors)) if errors[at] >= errors[at - 1]), len(errors))
    # A weight between two codes may fall to either side, and the minima part a little from there.
    assert error(float(got.minima[0, 0])) <= 1.05 * errors[stop - 1]
