"""Floor 1, throughput: how long training, decoding and reading a prompt take, from peaks, bandwidths and a stated
utilisation.

Pure functions. They are bounds and estimates from two numbers a device, not simulations: the nearest tools of that
kind report errors of 30 % and more. Every result says which limit binds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from highrise.compute.devices import Device
from highrise.compute.machine import Machine
from highrise.compute.memory import matrix_parameters, vector_parameters
from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape

__all__ = ["Bound", "attention_flops", "decode_bound", "prefill_bound", "training_seconds", "tuning_tokens"]

TUNING_UTILISATION = 0.45
"""Share of the measured matrix-product rate that a LoRA step in torch reaches on a CPU (docs/floors/1-compute.md)."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """A time that cannot be beaten at the stated utilisation."""

    seconds: float
    limit: Literal["memory bandwidth", "compute"]
    bytes: float
    flops: float


def attention_flops(shape: DecoderShape, *, queries: int, context: int) -> float:
    """Scores and weighted sum of `queries` tokens over `context` keys: 4 x layers x heads x head size each pair."""
    return 4.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * queries * context


def _bound(
    device: Device, size: float, flops: float, devices: int, bandwidth_share: float, compute_share: float
) -> Bound:
    memory = size / (device.bandwidth * bandwidth_share * devices)
    compute = flops / (device.peak_16bit * compute_share * devices)
    return Bound(
        seconds=max(memory, compute),
        limit="memory bandwidth" if memory >= compute else "compute",
        bytes=size,
        flops=flops,
    )


def _read_bytes(shape: DecoderShape, bits: float) -> float:
    """Bytes of weights that one step reads: every matrix once, no embedding look-up."""
    return (matrix_parameters(shape) * bits + vector_parameters(shape) * 16) / 8


def decode_bound(
    shape: DecoderShape,
    device: Device,
    *,
    batch: int = 1,
    context: int = 0,
    bits: float = 16.0,
    kv_bits: float = 16.0,
    devices: int = 1,
    bandwidth_share: float = 0.8,
    compute_share: float = 0.8,
) -> Bound:
    """One decoding step of `batch` sequences: weights once and each sequence's keys and values, over the bandwidth."""
    size = _read_bytes(shape, bits) + batch * context * shape.kv_bytes_per_token * kv_bits / 16
    flops = 2.0 * matrix_parameters(shape) * batch + attention_flops(shape, queries=batch, context=context)
    return _bound(device, size, flops, devices, bandwidth_share, compute_share)


def prefill_bound(
    shape: DecoderShape,
    device: Device,
    *,
    tokens: int,
    bits: float = 16.0,
    devices: int = 1,
    bandwidth_share: float = 0.8,
    compute_share: float = 0.6,
) -> Bound:
    """Reading a prompt of `tokens`: 2 operations a weight and token, plus causal attention (half of all pairs)."""
    size = _read_bytes(shape, bits) + tokens * shape.kv_bytes_per_token
    flops = 2.0 * matrix_parameters(shape) * tokens + attention_flops(shape, queries=tokens, context=tokens) / 2
    return _bound(device, size, flops, devices, bandwidth_share, compute_share)


def training_seconds(
    shape: DecoderShape, device: Device, *, tokens: float, devices: int = 1, utilisation: float = 0.4
) -> float:
    """Seconds of 6PD operations (P parameters, D tokens) on `devices` at `utilisation` of their 16-bit peak."""
    return 6.0 * shape.num_parameters * tokens / (device.peak_16bit * utilisation * devices)


def tuning_tokens(
    shape: DecoderShape, seconds: float, machine: Machine, *, utilisation: float = TUNING_UTILISATION
) -> int:
    """Tokens that LoRA tuning on this processor gets through in `seconds`.

    Four operations a matrix weight and token (forward 2, gradient of the activations 2; frozen weights have no
    gradient), at `utilisation` of the machine's float32 matrix-product rate, measured now (0.3 s) when `machine` does
    not say it.
    """
    if seconds < 0:
        raise InputError(f"a tuning budget of {seconds:g} s is negative; give at least 0")
    from highrise.compute import probe

    flops = machine.matmul_flops or probe.matmul_flops()
    return int(seconds * flops * utilisation / (4.0 * matrix_parameters(shape)))
