"""Floor 1, layout: how a model is spread over devices so that it fits, with the least communication.

Tensor parallelism stays inside the scale-up domain and divides the heads; pipeline stages divide the layers; the rest
are data-parallel ranks that may shard the optimiser or everything. Knows memory only: a layout that fits may still be
slow.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from highrise.compute.devices import Device
from highrise.compute.memory import Sharding, activation_bytes, kv_bytes, state_bytes, weight_bytes
from highrise.core.shape import DecoderShape

__all__ = ["ServingLayout", "TrainingLayout", "fit_serving", "fit_training"]

_SHARDINGS: tuple[Sharding, ...] = ("none", "optimizer", "full")


class TrainingLayout(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train; bytes are those of the fullest device."""

    data_parallel: int
    tensor_parallel: int
    pipeline_parallel: int
    sharding: Sharding
    recompute: bool
    state_bytes: float
    activation_bytes: float
    gathered_bytes: float
    """Two layers' whole weights, gathered while they are used (sharding "full" only)."""

    @property
    def devices(self) -> int:
        """Devices in use: the product of the three."""
        return self.data_parallel * self.tensor_parallel * self.pipeline_parallel

    @property
    def total_bytes(self) -> float:
        """Bytes on the fullest device, reserve not counted."""
        return self.state_bytes + self.activation_bytes + self.gathered_bytes


class ServingLayout(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of a served model; bytes are those of one device."""

    tensor_parallel: int
    pipeline_parallel: int
    weight_bytes: float
    kv_bytes: float
    max_tokens: int
    """Tokens of keys and values that fit in the memory left on all devices of the replica."""


def _tensor_degrees(shape: DecoderShape, device: Device, devices: int) -> list[int]:
    """Powers of two up to the scale-up domain that divide the query heads, and the key-value heads or are their
    multiple.
    """
    degrees, degree = [], 1
    while degree <= min(device.scale_up_devices, devices):
        heads, groups = shape.num_attention_heads, shape.num_key_value_heads
        if heads % degree == 0 and (groups % degree == 0 or degree % groups == 0):
            degrees.append(degree)
        degree *= 2
    return degrees


def _splits(shape: DecoderShape, device: Device, devices: int) -> Iterator[tuple[int, int]]:
    """(tensor, pipeline) pairs that divide `devices`, least model parallelism first, pipeline stages last."""
    pairs = [
        (tensor, pipeline)
        for tensor in _tensor_degrees(shape, device, devices)
        for pipeline in range(1, min(shape.num_hidden_layers, devices) + 1)
        if devices % (tensor * pipeline) == 0
    ]
    yield from sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[1]))


def fit_training(shape: DecoderShape, device: Device, *, devices: int, sequence: int) -> TrainingLayout | None:
    """The first layout that fits `devices` devices with one sequence of `sequence` tokens a micro-batch, or None.

    Tried in this order: no model parallelism before some, everything kept before recomputing activations, little
    sharding before much. A 1F1B pipeline holds as many micro-batches as stages, so stages divide weights but not
    activations.
    """
    room = device.memory_bytes - device.reserved_bytes
    layer = 2.0 * weight_bytes(shape) / shape.num_hidden_layers
    for tensor, pipeline in _splits(shape, device, devices):
        data = devices // (tensor * pipeline)
        for recompute in (False, True):
            for sharding in _SHARDINGS if data > 1 else _SHARDINGS[:1]:
                layout = TrainingLayout(
                    data_parallel=data,
                    tensor_parallel=tensor,
                    pipeline_parallel=pipeline,
                    sharding=sharding,
                    recompute=recompute,
                    state_bytes=state_bytes(
                        shape.num_parameters / (tensor * pipeline), data_parallel=data, sharding=sharding
                    ),
                    activation_bytes=activation_bytes(
                        shape, tokens=sequence, tensor_parallel=tensor, recompute=recompute
                    ),
                    gathered_bytes=layer / tensor if sharding == "full" else 0.0,
                )
                if layout.total_bytes <= room:
                    return layout
    return None


def fit_serving(
    shape: DecoderShape,
    device: Device,
    *,
    devices: int,
    tokens: int,
    bits: float = 16.0,
    kv_bits: float = 16.0,
) -> ServingLayout | None:
    """The smallest replica that holds the weights and `tokens` tokens of keys and values, or None."""
    room = device.memory_bytes - device.reserved_bytes
    weights, cache = weight_bytes(shape, bits=bits), kv_bytes(shape, tokens=tokens, bits=kv_bits)
    token = kv_bytes(shape, tokens=1, bits=kv_bits)
    degrees = _tensor_degrees(shape, device, devices)
    pairs = [(tensor, pipeline) for tensor in degrees for pipeline in range(1, devices // tensor + 1)]
    for tensor, pipeline in sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[1])):
        if pipeline > shape.num_hidden_layers or (pipeline > 1 and tensor != degrees[-1]):
            continue
        copies = max(1.0, tensor / shape.num_key_value_heads)  # key-value heads repeated when there are too few
        own_weights = weights / (tensor * pipeline)
        own_cache = cache * copies / (tensor * pipeline)
        if own_weights + own_cache <= room:
            left = (room - own_weights) * tensor * pipeline / copies
            return ServingLayout(
                tensor_parallel=tensor,
                pipeline_parallel=pipeline,
                weight_bytes=own_weights,
                kv_bytes=own_cache,
                max_tokens=int(left // token),
            )
    return None
