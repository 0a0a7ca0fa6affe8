"""A real Slurm of two fake nodes with fake H100s, started from Debian's packages below a temporary folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


class ClusterError(Exception):
    """Slurm's own daemons did not start on this machine."""


NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "sinfo")

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
GresTypes=gpu
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 Gres=gpu:h100:8
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 Gres=gpu:h100:8
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    absent = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if absent:
        return f"no {', '.join(absent)}: run scripts/install_debian.sh"
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root here"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_device(Path(folder) / "null")
        except PermissionError:
            return "this container may not make device files, which the pretended H100s are"
    return None


def _make_device(path: Path) -> None:
    """A copy of /dev/null: Slurm sets CUDA_VISIBLE_DEVICES only for character devices."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start the cluster; yields the environment its clients need. Everything is stopped at the end."""
    ports = [_free_port() for _ in range(3)]
    host = socket.gethostname().split(".")[0]
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for index in range(8):
        _make_device(folder / f"nvidia{index}")
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(host=host, folder=folder, controller=ports[0], first=ports[1], second=ports[2]))
    (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu Type=h100 File={folder}/nvidia[0-7]\n")
    environment = {**os.environ, "PATH": _path(), "SLURM_CONF": str(config)}
    munge = ["munged", "-F", "-f", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"]
    daemons = [munge, ["slurmctld", "-D", "-f", str(config)]]
    daemons += [["slurmd", "-D", "-N", node, "-f", str(config)] for node in ("n1", "n2")]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            with (folder / "daemons.log").open("ab") as log:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            end = time.monotonic() + 10
            while command is munge and not (folder / "munge.socket").exists() and time.monotonic() < end:
                time.sleep(0.02)
        _wait_until_idle(environment, folder)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    end, states = time.monotonic() + 60, ""
    while time.monotonic() < end:
        command = ["timeout", "5", "sinfo", "--noheader", "--Node", "--format=%T"]
        states = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
        if states.split() == ["idle", "idle"]:
            return
        time.sleep(0.1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
    raise ClusterError(f"the Slurm nodes did not become idle ({states!r}):\n{logs}")
