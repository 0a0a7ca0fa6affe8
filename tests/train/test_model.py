"""The decoder against transformers: equal logits both ways, for files written here and there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from highrise.core.catalogue import locate
from highrise.core.errors import HighriseError
from highrise.core.shape import DecoderShape
from highrise.train.model import Decoder
from highrise.train.weights_io import load_decoder, save_decoder
from tests.reference.decoder_torch import reference_logits

SMALL = DecoderShape(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    intermediate_size=80,
    vocab_size=97,
    max_position_embeddings=64,
    head_dim=8,
    rope_theta=50_000.0,
)


def _shape(*, bias: bool, tied: bool) -> DecoderShape:
    import msgspec

    return msgspec.structs.replace(SMALL, attention_bias=bias, tie_word_embeddings=tied)


def _random(shape: DecoderShape) -> Decoder:
    torch.manual_seed(0)
    decoder = Decoder(shape)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return decoder


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_equals_the_slow_reference(bias: bool, tied: bool) -> None:
    decoder = _random(_shape(bias=bias, tied=tied)).double()
    ids = torch.randint(0, 97, (11,))
    expected = reference_logits(decoder.state_dict(), decoder.shape, ids.tolist())
    torch.testing.assert_close(decoder(ids[None])[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_what_we_save_and_we_load_what_it_saves(bias: bool, tied: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    decoder = _random(_shape(bias=bias, tied=tied))
    save_decoder(decoder, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    ids = torch.randint(0, 97, (2, 40))
    with torch.no_grad():
        logits = decoder(ids)
        torch.testing.assert_close(theirs(ids).logits, logits, rtol=1e-4, atol=1e-4)
        theirs.save_pretrained(tmp_path / "theirs")
        again = load_decoder(tmp_path / "theirs")
        assert again.shape == decoder.shape
        torch.testing.assert_close(again(ids), logits, rtol=0, atol=1e-5)


def test_bfloat16_files_keep_their_bits(tmp_path: Path) -> None:
    decoder = _random(SMALL)
    save_decoder(decoder, tmp_path / "half", dtype="bfloat16")
    again = load_decoder(tmp_path / "half", dtype=torch.bfloat16)
    for name, value in decoder.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.bfloat16()), name


def test_recomputing_changes_no_gradient() -> None:
    decoder = _random(SMALL)
    ids = torch.randint(0, 97, (2, 9))
    gradients = []
    for recompute in (False, True):
        decoder.recompute = recompute
        decoder.zero_grad()
        decoder(ids).square().mean().backward()
        gradients.append([p.grad.clone() for p in decoder.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_smollm2_from_gguf_equals_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    try:
        path = locate("smollm2-135m")
    except HighriseError as error:
        pytest.skip(f"needs smollm2-135m: {error}")
    decoder = load_decoder(path)
    save_decoder(decoder, tmp_path / "m")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    ids = torch.randint(0, decoder.shape.vocab_size, (1, 24))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, decoder(ids), rtol=1e-3, atol=2e-3)
