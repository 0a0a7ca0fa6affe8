"""Floor 1, machine: what this machine is and how much of it this process may use.

Cores and memory are what affinity masks and control groups leave, not what is soldered on. Speeds are there only when
they were measured (`measure=True`, under two seconds); nothing is guessed from model names.
"""

from __future__ import annotations

import math
import os
import platform
import shutil
from pathlib import Path

import msgspec

from highrise.compute.adapters.cuda import Gpu, list_gpus
from highrise.compute.cgroup import Limits, read_limits
from highrise.compute.isa import isa_flags
from highrise.core.cores import usable_cores

__all__ = ["Gpu", "Machine", "detect"]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """This machine; bytes and cores are those usable by this process."""

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    cores_present: int
    cores: int
    """Cores this process may keep busy: the affinity mask, cut by the control group's quota (rounded up)."""
    memory_bytes: int
    """Total memory, or the control group's limit when that is smaller."""
    memory_available_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()
    no_gpu_reason: str | None = None
    bandwidth: float | None = None
    """Measured bytes a second that all usable cores read together; None when not measured."""
    matmul_flops: float | None = None
    """Measured float32 operations a second of numpy's matrix product; None when not measured."""


def _meminfo(text: str) -> dict[str, int]:
    """Bytes by name from a /proc/meminfo text."""
    amounts = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            amounts[name] = int(fields[0]) * (1024 if fields[1:] == ["kB"] else 1)
    return amounts


def _memory(limits: Limits, meminfo: Path) -> tuple[int, int]:
    try:
        amounts = _meminfo(meminfo.read_text())
    except OSError:
        amounts = {}
    total = amounts.get("MemTotal") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = amounts.get("MemAvailable", total)
    if limits.memory_bytes is not None:
        total = min(total, limits.memory_bytes)
        available = min(available, max(0, total - (limits.memory_used_bytes or 0)))
    return total, min(available, total)


def _cores(limits: Limits) -> tuple[int, int]:
    present = os.cpu_count() or 1
    usable = usable_cores()
    if limits.cores is not None:
        usable = min(usable, math.ceil(limits.cores))
    return present, max(1, usable)


def detect(
    *, measure: bool = False, folder: Path = Path(), limits: Limits | None = None, meminfo: Path = Path("/proc/meminfo")
) -> Machine:
    """Describe this machine; `folder` names the disk asked for free space, `limits` replaces the control group's."""
    limits = read_limits() if limits is None else limits
    cpu, isa = isa_flags()
    present, cores = _cores(limits)
    total, available = _memory(limits, meminfo)
    gpus, reason = list_gpus()
    bandwidth = flops = None
    if measure:
        from highrise.compute import probe

        bandwidth, flops = probe.memory_bandwidth(threads=cores), probe.matmul_flops()
    return Machine(
        cpu=cpu,
        architecture=platform.machine(),
        isa=isa,
        cores_present=present,
        cores=cores,
        memory_bytes=total,
        memory_available_bytes=available,
        disk_free_bytes=shutil.disk_usage(folder.resolve()).free,
        gpus=gpus,
        no_gpu_reason=reason,
        bandwidth=bandwidth,
        matmul_flops=flops,
    )
