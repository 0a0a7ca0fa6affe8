"""Floor 1, CUDA: the graphics processors of this machine, asked through cuda-python (`cuda.core`).

The only file of the floor that imports cuda. Never fails: without the package or a driver it returns no device and
says why.
"""

from __future__ import annotations

import importlib

import msgspec

__all__ = ["Gpu", "list_gpus"]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One CUDA device."""

    index: int
    name: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int


def list_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    """All CUDA devices, and the reason in a sentence when there are none."""
    try:
        core = importlib.import_module("cuda.core")
    except ImportError:
        return (), "cuda-python is not installed (pip install 'cuda-core[cu13]'), so no CUDA driver was asked"
    try:
        # cuda-bindings loads libcuda on the first call and fails here when there is no driver
        driver = importlib.import_module("cuda.bindings.driver")
        status, count = driver.cuInit(0)[0], 0
        if int(status) == 0:
            count = int(driver.cuDeviceGetCount()[1])
    except Exception as error:  # the loader raises RuntimeError, ImportError or its own class, by release
        return (), f"no CUDA driver: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    if int(status) != 0:
        return (), f"the CUDA driver answered error {int(status)} ({getattr(status, 'name', status)})"
    if count == 0:
        return (), "the CUDA driver found no device"
    gpus = []
    for index in range(count):
        device = core.Device(index)
        capability = device.compute_capability
        total = int(driver.cuDeviceTotalMem(driver.cuDeviceGet(index)[1])[1])
        gpus.append(
            Gpu(
                index=index,
                name=str(device.name),
                compute_capability=f"{capability.major}.{capability.minor}",
                multiprocessors=int(device.properties.multiprocessor_count),
                memory_bytes=total,
            )
        )
    return tuple(gpus), None
