"""The machine: what cgroups, masks and /proc say, read from fake trees; and this real one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from highrise.compute.adapters.cuda import list_gpus
from highrise.compute.cgroup import Limits, read_limits
from highrise.compute.devices import device_of
from highrise.compute.isa import isa_flags
from highrise.compute.machine import Machine, detect


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cgroup_v2_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "self": "0::/pod/container\n",
            "fs/cpu.max": "max 100000\n",
            "fs/pod/cpu.max": "150000 100000\n",
            "fs/pod/container/cpu.max": "400000 100000\n",
            "fs/pod/memory.max": "2000000000\n",
            "fs/pod/memory.current": "500000000\n",
            "fs/pod/container/memory.max": "max\n",
        },
    )
    limits = read_limits(root=tmp_path / "fs", membership=tmp_path / "self")
    assert limits == Limits(cores=1.5, memory_bytes=2_000_000_000, memory_used_bytes=500_000_000)


def test_cgroup_v1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "self": "4:memory:/job\n1:cpu,cpuacct:/job\n",
            "fs/cpu/job/cpu.cfs_quota_us": "200000\n",
            "fs/cpu/job/cpu.cfs_period_us": "100000\n",
            "fs/cpu/cpu.cfs_quota_us": "-1\n",
            "fs/cpu/cpu.cfs_period_us": "100000\n",
            "fs/memory/job/memory.limit_in_bytes": "1048576\n",
            "fs/memory/job/memory.usage_in_bytes": "4096\n",
            "fs/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    limits = read_limits(root=tmp_path / "fs", membership=tmp_path / "self")
    assert limits == Limits(cores=2.0, memory_bytes=1_048_576, memory_used_bytes=4096)


def test_no_cgroup_files_is_no_limit(tmp_path: Path) -> None:
    assert read_limits(root=tmp_path / "none", membership=tmp_path / "none") == Limits()


def test_limits_cut_cores_and_memory() -> None:
    machine = detect(limits=Limits(cores=0.5, memory_bytes=1 << 30, memory_used_bytes=1 << 29))
    assert machine.cores == 1
    assert machine.memory_bytes == 1 << 30
    assert machine.memory_available_bytes <= 1 << 29


@pytest.mark.parametrize(
    ("architecture", "text", "names"),
    [
        ("x86_64", "model name : A\nflags : sse2 avx avx2 fma f16c\n", ("sse2", "avx2")),
        ("x86_64", "model name : A\nflags : sse2 avx2\n", ("sse2",)),
        (
            "x86_64",
            "model name : A\nflags : avx2 fma f16c avx512f avx512bw avx512vl avx512dq avx512_vnni\n",
            ("sse2", "avx2", "avx512", "avx512vnni"),
        ),
        ("aarch64", "Features : fp asimd asimddp i8mm\n", ("neon", "dotprod", "i8mm")),
        ("riscv64", "isa : rv64\n", ("portable",)),
    ],
)
def test_isa(tmp_path: Path, architecture: str, text: str, names: tuple[str, ...]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert isa_flags(cpuinfo=path, architecture=architecture)[1] == names


def test_isa_without_cpuinfo_is_the_baseline(tmp_path: Path) -> None:
    assert isa_flags(cpuinfo=tmp_path / "none", architecture="x86_64")[1] == ("sse2",)


def test_this_machine() -> None:
    machine = detect()
    assert 1 <= machine.cores <= machine.cores_present
    assert machine.cores <= len(os.sched_getaffinity(0))
    assert 0 < machine.memory_available_bytes <= machine.memory_bytes
    assert machine.bandwidth is None
    assert bool(machine.gpus) != bool(machine.no_gpu_reason)


def test_measured_machine_is_a_device() -> None:
    machine = detect(measure=True)
    assert machine.bandwidth is not None and machine.bandwidth > 1e8
    assert machine.matmul_flops is not None and machine.matmul_flops > 1e8
    device = device_of(machine)
    assert device.peak_16bit == machine.matmul_flops
    assert device.memory_bytes == machine.memory_bytes


def test_gpus_or_the_reason() -> None:
    gpus, reason = list_gpus()
    assert bool(gpus) != bool(reason)
    assert all(gpu.memory_bytes > 0 and gpu.multiprocessors > 0 for gpu in gpus)


def test_two_gpus_of_a_pretended_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are those of cuda-core 1.2 and cuda-bindings 13; there was no device to ask."""

    def device(index: int) -> SimpleNamespace:
        properties = SimpleNamespace(multiprocessor_count=132)
        capability = SimpleNamespace(major=9, minor=0)
        return SimpleNamespace(name=f"H100 {index}", compute_capability=capability, properties=properties)

    driver = SimpleNamespace(
        cuInit=lambda _: (0,),
        cuDeviceGetCount=lambda: (0, 2),
        cuDeviceGet=lambda index: (0, index),
        cuDeviceTotalMem=lambda _: (0, 80 << 30),
    )
    modules = {"cuda.core": SimpleNamespace(Device=device), "cuda.bindings.driver": driver}
    monkeypatch.setattr("highrise.compute.adapters.cuda.importlib.import_module", modules.__getitem__)
    gpus, reason = list_gpus()
    assert reason is None
    assert [gpu.name for gpu in gpus] == ["H100 0", "H100 1"]
    assert gpus[1].compute_capability == "9.0" and gpus[1].memory_bytes == 80 << 30
    driver.cuInit = lambda _: (100,)
    assert list_gpus() == ((), "the CUDA driver answered error 100 (100)")
    driver.cuInit, driver.cuDeviceGetCount = lambda _: (0,), lambda: (0, 0)
    assert list_gpus() == ((), "the CUDA driver found no device")


def test_machine_struct_is_frozen() -> None:
    machine = detect()
    with pytest.raises(AttributeError):
        machine.cores = 3  # type: ignore[misc]
    assert isinstance(machine, Machine)
