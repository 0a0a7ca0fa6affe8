"""Floor 1, devices: the catalogue of accelerators, and this machine's processor written as one of them.

Figures and their sources stand in `devices.toml`. Knows nothing of models.
"""

from __future__ import annotations

import functools
import tomllib
from importlib import resources

import msgspec

from highrise.compute.machine import Machine
from highrise.core.config import Config, convert
from highrise.core.errors import InputError

__all__ = ["Device", "catalogue", "device", "device_of"]


class Device(Config, frozen=True, kw_only=True):
    """One kind of accelerator."""

    title: str
    kind: str
    """"gpu", "tpu" or "cpu"."""
    peak: dict[str, float]
    """Dense operations a second by number format."""
    memory_bytes: int
    bandwidth: float
    """Bytes a second of its memory."""
    scale_up_devices: int = 1
    """How many share the fast interconnect (NVLink, Infinity Fabric, ICI): tensor parallelism stays inside."""
    scale_up_bandwidth: float | None = None
    """Bytes a second and device, one direction, inside that domain."""
    scale_out_bandwidth: float | None = None
    """Bytes a second and device between domains."""
    watts: float | None = None
    price_hour: float | None = None
    """List price in US dollars an hour."""
    reserved_bytes: int = 3_500_000_000
    """Memory for context, communication buffers and fragmentation (aiconfigurator assumes 3.5 GB on a GPU)."""
    sources: tuple[str, ...]

    @property
    def peak_16bit(self) -> float:
        """Operations a second of 16-bit matrix products (float32 on a CPU)."""
        return self.peak["bf16"] if "bf16" in self.peak else max(self.peak.values())


@functools.cache
def catalogue() -> dict[str, Device]:
    """Every device of devices.toml by name."""
    text = resources.files("highrise.compute").joinpath("devices.toml").read_text(encoding="utf-8")
    return {name: convert(value, Device, where=f"devices.toml: {name}") for name, value in tomllib.loads(text).items()}


def device_of(machine: Machine) -> Device:
    """This machine's processor as a device; measures what `machine` does not say."""
    from highrise.compute import probe

    flops = machine.matmul_flops or probe.matmul_flops()
    return Device(
        title=f"{machine.cpu}, {machine.cores} cores",
        kind="cpu",
        peak={"fp32": flops},
        memory_bytes=machine.memory_bytes,
        bandwidth=machine.bandwidth or probe.memory_bandwidth(threads=machine.cores),
        reserved_bytes=min(1_000_000_000, machine.memory_bytes // 8),
        sources=("peak and bandwidth: measured on this machine just now (numpy float32 product, all cores reading)",),
    )


def device(name: str) -> Device:
    """The device of that name; "cpu" is this machine, measured."""
    if name == "cpu":
        from highrise.compute.machine import detect

        return device_of(detect(measure=True))
    known = catalogue()
    if name not in known:
        raise InputError(f"no device {name!r} in the catalogue; known are cpu, {', '.join(known)}")
    return msgspec.structs.replace(known[name])
