"""Floor 1, plan: one answer to "what does this model need on that device", composed from memory, layout and
throughput.

The struct holds numbers; `report.py` prints them. Everything assumed (utilisation, price, context) is a field of the
answer.
"""

from __future__ import annotations

import msgspec

from highrise.compute.devices import Device
from highrise.compute.layout import ServingLayout, TrainingLayout, fit_serving, fit_training
from highrise.compute.memory import (
    FORMAT_BITS,
    activation_bytes,
    kv_bytes,
    matrix_parameters,
    state_bytes,
    weight_bytes,
)
from highrise.compute.throughput import Bound, decode_bound, prefill_bound, training_seconds, tuning_tokens
from highrise.core.errors import InputError
from highrise.core.shape import DecoderShape

__all__ = ["Plan", "Question", "make_plan", "tuning_tokens"]


_MAX_DEVICES = 1_000_000


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, with every assumption."""

    devices: int = 1
    sequence: int = 4096
    """Tokens of a training sequence."""
    context: int = 4096
    """Tokens of a served sequence: prompt of the prefill bound, keys and values of the decode bound."""
    batch: int = 1
    """Sequences decoded at a time."""
    weights: str = "bf16"
    """Format of the served weights, a key of FORMAT_BITS."""
    tokens: float | None = None
    """Training tokens; without it no training time is computed."""
    utilisation: float = 0.4
    """Share of the 16-bit peak that training reaches."""
    bandwidth_share: float = 0.8
    """Share of the memory bandwidth that decoding reaches."""
    prefill_share: float = 0.6
    """Share of the 16-bit peak that reading a prompt reaches."""
    price: float | None = None
    """US dollars an hour and device; the catalogue's price without it."""

    def __post_init__(self) -> None:
        for name in ("devices", "sequence", "context", "batch"):
            most = _MAX_DEVICES if name == "devices" else 10**12
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be from 1 to {most:,}")
        for name in ("utilisation", "bandwidth_share", "prefill_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name):g}; it is a share, above 0 and at most 1")
        if self.weights not in FORMAT_BITS:
            raise InputError(f"weights {self.weights!r} is no known format; choose one of {', '.join(FORMAT_BITS)}")
        if self.tokens is not None and not 0 < self.tokens < 1e18:
            raise InputError(f"tokens is {self.tokens:g}; it must be above 0 and below 1e18")
        if self.price is not None and not 0 <= self.price < 1e9:
            raise InputError(f"price is {self.price:g}; it must be US dollars an hour and device, 0 or more")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer. Bytes, seconds, US dollars."""

    model: str
    device: Device
    shape: DecoderShape
    question: Question
    parameters: int
    active_parameters: int
    """Weights a token is multiplied with: no embedding look-up."""
    weight_bytes: dict[str, int]
    """By format."""
    kv_bytes_per_token: int
    kv_bytes: int
    """Of `batch` sequences of `context` tokens."""
    optimizer_bytes: float
    """Weights, gradients and AdamW state on one device, nothing sharded."""
    activation_bytes: float
    """Of one training sequence, nothing recomputed."""
    training: TrainingLayout | None
    serving: ServingLayout | None
    decode: Bound
    prefill: Bound
    training_seconds: float | None
    device_hours: float | None
    money: float | None


def make_plan(model: str, shape: DecoderShape, device: Device, question: Question) -> Plan:
    """Answer `question` for a model of `shape` on `question.devices` of `device`."""
    bits = FORMAT_BITS[question.weights]
    serving = fit_serving(shape, device, devices=question.devices, tokens=question.batch * question.context, bits=bits)
    replica = serving.tensor_parallel if serving else 1
    seconds = hours = money = None
    if question.tokens is not None:
        seconds = training_seconds(
            shape, device, tokens=question.tokens, devices=question.devices, utilisation=question.utilisation
        )
        hours = seconds / 3600 * question.devices
        price = device.price_hour if question.price is None else question.price
        money = None if price is None else hours * price
    return Plan(
        model=model,
        device=device,
        shape=shape,
        question=question,
        parameters=shape.num_parameters,
        active_parameters=matrix_parameters(shape),
        weight_bytes={name: weight_bytes(shape, bits=width) for name, width in FORMAT_BITS.items()},
        kv_bytes_per_token=shape.kv_bytes_per_token,
        kv_bytes=kv_bytes(shape, tokens=question.batch * question.context),
        optimizer_bytes=state_bytes(shape.num_parameters),
        activation_bytes=activation_bytes(shape, tokens=question.sequence),
        training=fit_training(shape, device, devices=question.devices, sequence=question.sequence),
        serving=serving,
        decode=decode_bound(
            shape,
            device,
            batch=question.batch,
            context=question.context,
            bits=bits,
            devices=replica,
            bandwidth_share=question.bandwidth_share,
        ),
        prefill=prefill_bound(
            shape, device, tokens=question.context, bits=bits, devices=replica, compute_share=question.prefill_share
        ),
        training_seconds=seconds,
        device_hours=hours,
        money=money,
    )
