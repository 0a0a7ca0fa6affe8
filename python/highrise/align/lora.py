"""Floor 5, lora: low-rank adapters on a Decoder's linear layers, in and out in PEFT's file format, and merged.

W x + alpha / rank * B A x; A drawn as PEFT draws it (Kaiming uniform, a = sqrt 5), B zero, both in float32 whatever the
frozen weights are in. Knows no loss and no data.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from highrise.align.config import LoraConfig
from highrise.core.errors import InputError
from highrise.core.files import atomic_write
from highrise.core.json_text import decode_json
from highrise.core.safetensors import SafeTensors, write_safetensors
from highrise.train.model import Decoder

__all__ = [
    "LoraLinear",
    "adapter_parameters",
    "adapter_state",
    "add_adapter",
    "as_it_was",
    "load_adapter",
    "merge_adapter",
    "save_adapter",
    "set_adapter_state",
    "without_adapter",
]

_PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained low-rank product beside it."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.base, self.scale, self.enabled = base, alpha / rank, True
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        if not self.enabled:
            plain: Tensor = self.base(x)
            return plain
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        elif self.base.weight.dtype == self.lora_A.dtype:
            dtype = self.lora_A.dtype
        else:  # frozen weights in 16 bits and no autocast: the small product stays in float32
            low = F.linear(x.to(self.lora_A.dtype), self.lora_A)
            wide: Tensor = self.base(x)
            return wide + (F.linear(low, self.lora_B) * self.scale).to(wide.dtype)
        out: Tensor = _AdaptedProduct.apply(
            x.to(dtype), self.base.weight.to(dtype), self.base.bias, self.lora_A, self.lora_B, self.scale
        )
        return out


class _AdaptedProduct(torch.autograd.Function):
    """x W^T + b + s (x A^T) B^T, and its gradient for x, A and B.

    Written out because autograd's way makes several passes over tensors as wide as the layer: the scaled product, its
    sum with the frozen one, and the same again backwards. Here the low-rank products are added in place by the matrix
    products themselves.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, a, b, scale):  # type: ignore[no-untyped-def]
        a_low, b_low = a.to(x.dtype), b.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a_low.T
        with torch.autocast(x.device.type, enabled=False):
            out = F.linear(rows, weight, None if bias is None else bias.to(x.dtype))
        out.addmm_(low, b_low.T, alpha=scale)
        ctx.save_for_backward(rows, weight, low, a_low, b_low)
        ctx.scale, ctx.shape = scale, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        rows, weight, low, a_low, b_low = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])
        with torch.autocast(above.device.type, enabled=False):
            for_low = above @ b_low
            for_a = (for_low.T @ rows).float().mul_(ctx.scale)
            for_b = (above.T @ low).float().mul_(ctx.scale)
            for_x = None
            if ctx.needs_input_grad[0]:
                for_x = (above @ weight).addmm_(for_low, a_low, alpha=ctx.scale).view(ctx.shape)
        return for_x, None, None, for_a, for_b, None


def add_adapter(decoder: Decoder, config: LoraConfig) -> None:
    """Freeze every weight of `decoder` and put an adapter on each linear layer that `config` names."""
    decoder.requires_grad_(False)
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if name in config.targets and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, rank=config.rank, alpha=config.alpha))


def adapter_parameters(decoder: Decoder) -> list[nn.Parameter]:
    """The trained parameters, in a fixed order."""
    return [parameter for _, layer in _layers(decoder) for parameter in (layer.lora_A, layer.lora_B)]


def adapter_state(decoder: Decoder) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names."""
    return {
        f"{_PREFIX}{name}.lora_{which}.weight": getattr(layer, f"lora_{which}").detach().float().cpu()
        for name, layer in _layers(decoder)
        for which in ("A", "B")
    }


@torch.no_grad()
def set_adapter_state(decoder: Decoder, state: dict[str, Tensor] | None) -> None:
    """Put tensors from `adapter_state` back; None makes the adapter do nothing (B zero)."""
    for name, layer in _layers(decoder):
        if state is None:
            layer.lora_B.zero_()
            continue
        for which in ("A", "B"):
            getattr(layer, f"lora_{which}").copy_(state[f"{_PREFIX}{name}.lora_{which}.weight"])


@contextlib.contextmanager
def as_it_was(decoder: Decoder, state: dict[str, Tensor] | None) -> Iterator[None]:
    """The decoder with the adapter of an earlier moment (None: with none) inside the block; only without gradients."""
    if state is None:
        with without_adapter(decoder):
            yield
        return
    now = {name: tensor.clone() for name, tensor in adapter_state(decoder).items()}
    set_adapter_state(decoder, state)
    try:
        yield
    finally:
        set_adapter_state(decoder, now)


@contextlib.contextmanager
def without_adapter(decoder: Decoder) -> Iterator[None]:
    """The bare decoder inside the block: the reference model of preference tuning."""
    layers = [layer for _, layer in _layers(decoder)]
    for layer in layers:
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers:
            layer.enabled = True


def save_adapter(decoder: Decoder, folder: Path, config: LoraConfig, *, base: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors; `base` is what the adapter belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: tensor.numpy() for name, tensor in adapter_state(decoder).items()}
    write_safetensors(folder / "adapter_model.safetensors", arrays, metadata={"format": "pt"})
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "target_modules": list(config.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "inference_mode": True,
    }
    with atomic_write(folder / "adapter_config.json") as file:
        file.write(msgspec.json.format(msgspec.json.encode(described), indent=2))


class _PeftConfig(msgspec.Struct):
    r: int
    lora_alpha: float
    target_modules: list[str] | str
    peft_type: str = "LORA"
    use_rslora: bool = False
    use_dora: bool = False
    bias: str = "none"
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}


def load_adapter(decoder: Decoder, folder: Path) -> LoraConfig:
    """Add the adapter in `folder` (ours or PEFT's) to `decoder`; `InputError` when it does not fit."""
    path = folder / "adapter_config.json"
    try:
        stored = decode_json(path.read_bytes(), _PeftConfig)
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no adapter folder: it has no adapter_config.json") from error
    except msgspec.MsgspecError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    odd = (
        stored.use_dora or stored.bias != "none" or stored.fan_in_fan_out or stored.rank_pattern or stored.alpha_pattern
    )
    if stored.peft_type != "LORA" or odd:
        raise InputError(f"{path} is not a plain LoRA adapter (one rank, no bias, no DoRA): only those are read")
    file = SafeTensors(folder / "adapter_model.safetensors")
    if isinstance(stored.target_modules, str):
        names = {parts[-3] for name in file.tensors if len(parts := name.split(".")) >= 3}
    else:
        names = {name.split(".")[-1] for name in stored.target_modules}
    alpha = stored.lora_alpha * (math.sqrt(stored.r) if stored.use_rslora else 1.0)
    config = LoraConfig(rank=stored.r, alpha=alpha, targets=tuple(sorted(names)))
    add_adapter(decoder, config)
    wanted = adapter_state(decoder)
    if set(wanted) != set(file.tensors):
        odd_one = sorted(set(wanted) ^ set(file.tensors))[0]
        raise InputError(f"the adapter in {folder} does not fit these weights: {odd_one} is on one side only")
    with torch.no_grad():
        for name, layer in _layers(decoder):
            for which in ("A", "B"):
                key = f"{_PREFIX}{name}.lora_{which}.weight"
                target: nn.Parameter = getattr(layer, f"lora_{which}")
                if tuple(target.shape) != file.tensors[key].shape:
                    raise InputError(
                        f"the adapter in {folder} does not fit: {key} has shape {file.tensors[key].shape}, "
                        f"these weights want {tuple(target.shape)}"
                    )
                target.copy_(torch.from_numpy(file.read(key).astype("float32")))
    return config


def merge_adapter(decoder: Decoder) -> None:
    """Add each product to its weight, computed in float32 and rounded once, and take the adapters away."""
    for parent in list(decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                with torch.no_grad():
                    weight = child.base.weight
                    weight.copy_((weight.float() + child.scale * (child.lora_B @ child.lora_A)).to(weight.dtype))
                setattr(parent, name, child.base)


def _layers(decoder: Decoder) -> Iterator[tuple[str, LoraLinear]]:
    for name, module in decoder.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module
