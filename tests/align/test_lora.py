"""Adapters: the same logits as PEFT both ways, merged and apart, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from highrise.align.config import LoraConfig
from highrise.align.lora import (
    LoraLinear,
    add_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
    without_adapter,
)
from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape
from highrise.train.model import Decoder
from highrise.train.weights_io import load_decoder, save_decoder

SHAPE = DecoderShape(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    vocab_size=61,
    max_position_embeddings=64,
    head_dim=8,
    attention_bias=True,
)
IDS = torch.arange(1, 21).view(2, 10)


def _base(folder: Path) -> Decoder:
    torch.manual_seed(1)
    decoder = Decoder(SHAPE)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_decoder(decoder, folder)
    return decoder


def _adapted(folder: Path, config: LoraConfig) -> Decoder:
    decoder = _base(folder / "base")
    add_adapter(decoder, config)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.1)
    save_adapter(decoder, folder / "adapter", config, base=str(folder / "base"))
    return decoder


def test_peft_loads_ours_with_equal_logits(tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    decoder = _adapted(tmp_path, LoraConfig(rank=4, alpha=8))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert (decoder(IDS) - load_decoder(tmp_path / "base")(IDS)).abs().max() > 0.01
        torch.testing.assert_close(adapted(IDS).logits, decoder(IDS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_ours_loads_pefts_with_equal_logits(rslora: bool, tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    _base(tmp_path / "base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, use_rslora=rslora
    )
    adapted = peft.get_peft_model(theirs, settings).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    decoder = load_decoder(tmp_path / "base")
    load_adapter(decoder, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(adapted(IDS).logits, decoder(IDS), rtol=1e-4, atol=1e-4)


def test_merged_equals_apart_and_off_equals_base(tmp_path: Path) -> None:
    decoder = _adapted(tmp_path, LoraConfig(rank=3, alpha=6, targets=("o_proj", "up_proj")))
    with torch.no_grad():
        apart = decoder(IDS)
        with without_adapter(decoder):
            torch.testing.assert_close(decoder(IDS), load_decoder(tmp_path / "base")(IDS))
        merge_adapter(decoder)
        assert set(decoder.state_dict()) == set(load_decoder(tmp_path / "base").state_dict())
        torch.testing.assert_close(decoder(IDS), apart, rtol=1e-4, atol=1e-5)


def test_only_the_adapter_gets_gradients(tmp_path: Path) -> None:
    decoder = _adapted(tmp_path, LoraConfig(rank=2, alpha=2))
    decoder(IDS).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert (parameter.grad is not None) == ("lora_" in name), name


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    _adapted(tmp_path, LoraConfig(rank=2, alpha=2))
    import msgspec

    other = Decoder(msgspec.structs.replace(SHAPE, num_hidden_layers=1))
    with pytest.raises(InputError, match="does not fit"):
        load_adapter(other, tmp_path / "adapter")
    wider = Decoder(msgspec.structs.replace(SHAPE, intermediate_size=64))
    with pytest.raises(InputError, match="shape"):
        load_adapter(wider, tmp_path / "adapter")
    with pytest.raises(InputError, match="no adapter_config"):
        load_adapter(Decoder(SHAPE), tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_written_gradient_is_autograds(precision: str) -> None:
    torch.manual_seed(5)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    base = torch.nn.Linear(24, 40, bias=True).to(dtype).requires_grad_(False)
    layer = LoraLinear(base, rank=4, alpha=6.0)
    torch.nn.init.normal_(layer.lora_B)
    x = torch.randn(3, 7, 24)
    weight = torch.randn(3, 7, 40)

    def gradients(forward: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            out = forward(leaf)
        loss = (out.float() * weight).sum()
        return [out.detach().float(), *torch.autograd.grad(loss, [leaf, layer.lora_A, layer.lora_B])]

    def plain(leaf: torch.Tensor) -> torch.Tensor:
        full = base.weight.float() + layer.scale * (layer.lora_B @ layer.lora_A)
        with torch.autocast("cpu", enabled=False):
            return torch.nn.functional.linear(leaf, full, base.bias.float())

    limits = {"rtol": 1e-4, "atol": 1e-4} if precision == "float32" else {"rtol": 0.05, "atol": 0.5}
    for found, expected in zip(gradients(layer), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected, **limits)
