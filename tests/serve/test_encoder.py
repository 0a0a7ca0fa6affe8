"""The BERT encoder on every instruction set against plain numpy, and what batches and threads must not change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.native import csrc
from tests.reference.bert import encode_text, gelu, layer_norm, random_tensors

ISAS = csrc.available_isas()
EPSILON = 1e-12


def make(tensors, *, hidden, layers, heads, inner, threads=1, isa="auto"):
    encoder = csrc.Encoder(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        layer_norm_eps=EPSILON,
        threads=threads,
        isa=isa,
    )
    for name, values in tensors.items():
        encoder.set_tensor(name, values)
    assert encoder.missing() is None
    return encoder


def texts_of(rng, hidden, lengths):
    return rng.normal(0, 1, (sum(lengths), hidden)).astype(np.float32), np.cumsum([0, *lengths], dtype=np.int64)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15)
@given(data=st.data())
def test_every_isa_agrees_with_the_reference(isa, data):
    heads = data.draw(st.integers(1, 4), label="heads")
    hidden = heads * data.draw(st.integers(4, 40), label="head_dim")
    inner = data.draw(st.integers(2, 150), label="inner")
    layers = data.draw(st.integers(1, 2), label="layers")
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5), label="lengths")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    tensors = random_tensors(rng, hidden=hidden, layers=layers, inner=inner)
    encoder = make(tensors, hidden=hidden, layers=layers, heads=heads, inner=inner, isa=isa)
    embedded, offsets = texts_of(rng, hidden, lengths)
    ours = encoder.encode(embedded, offsets)
    for row, begin, end in zip(ours, offsets, offsets[1:], strict=False):
        wanted = encode_text(tensors, embedded[begin:end], layers=layers, heads=heads, epsilon=EPSILON)
        assert row @ wanted > 0.9999  # weights, and on AMX inputs too, are rounded to 16 bits


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_depends_on_its_own_text_only_bit_for_bit(isa):
    rng = np.random.default_rng(7)
    shape = {"hidden": 96, "layers": 2, "heads": 3, "inner": 200}
    tensors = random_tensors(rng, hidden=96, layers=2, inner=200)
    embedded, offsets = texts_of(rng, 96, [1, 700, 33, 2, 128, 128, 128, 128, 64, 31])
    together = make(tensors, **shape, threads=2, isa=isa).encode(embedded, offsets)
    alone = make(tensors, **shape, threads=1, isa=isa)
    for row, begin, end in zip(together, offsets, offsets[1:], strict=False):
        own = alone.encode(embedded[begin:end], np.array([0, end - begin]))
        np.testing.assert_array_equal(row, own[0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 7, 16, 33, 384])
def test_layer_norm(isa, count):
    rng = np.random.default_rng(count)
    x, weight, bias = (rng.normal(3, 2, count).astype(np.float32) for _ in range(3))
    ours = csrc.layer_norm(x, weight, bias, 1e-5, isa)
    np.testing.assert_allclose(ours, layer_norm(x, weight, bias, 1e-5), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_is_close_to_the_exact_one(isa):
    x = np.linspace(-30, 30, 20000, dtype=np.float32)
    assert np.abs(csrc.gelu(x, isa) - gelu(x)).max() < 3e-5
    extremes = np.array([-3e38, -1e5, -88.0, 0.0, 88.0, 1e5, 3e38, -0.0] * 2, np.float32)
    np.testing.assert_allclose(csrc.gelu(extremes, isa), np.maximum(extremes, 0), rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused_with_its_values():
    rng = np.random.default_rng(0)
    tensors = random_tensors(rng, hidden=32, layers=1, inner=64)
    with pytest.raises(ValueError, match="hidden_size 32 is not a multiple of num_attention_heads 3"):
        make({}, hidden=32, layers=1, heads=3, inner=64)
    encoder = csrc.Encoder(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, threads=1)
    with pytest.raises(KeyError, match="no tensor"):
        encoder.set_tensor("pooler.dense.weight", tensors["encoder.layer.0.attention.output.dense.weight"])
    with pytest.raises(ValueError, match=r"has shape \(64, 32\); this encoder wants 32 x 64"):
        encoder.set_tensor("encoder.layer.0.output.dense.weight", tensors["encoder.layer.0.intermediate.dense.weight"])
    embedded = np.zeros((3, 32), np.float32)
    with pytest.raises(ValueError, match="was not set"):
        encoder.encode(embedded, np.array([0, 3]))
    for name, values in tensors.items():
        encoder.set_tensor(name, values)
    with pytest.raises(ValueError, match="was set before"):
        encoder.set_tensor("embeddings.LayerNorm.bias", tensors["embeddings.LayerNorm.bias"])
    with pytest.raises(ValueError, match="text 1 has 0 tokens"):
        encoder.encode(embedded, np.array([0, 3, 3]))
    with pytest.raises(ValueError, match="end with the number of tokens, 3"):
        encoder.encode(embedded, np.array([0, 2]))
    with pytest.raises(ValueError, match="hidden_size 32 columns"):
        encoder.encode(np.zeros((3, 16), np.float32), np.array([0, 3]))
    assert encoder.encode(np.zeros((0, 32), np.float32), np.array([0])).shape == (0, 32)
