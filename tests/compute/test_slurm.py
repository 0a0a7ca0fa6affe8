"""The Slurm adapter against a real Slurm: submission, two nodes, devices, exit codes, refusals."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from highrise.compute.adapters.slurm import SlurmLauncher
from highrise.compute.jobs import Job
from tests.compute import slurm_cluster

GOLDEN = """\
#!/bin/bash
#SBATCH --job-name=pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=96
#SBATCH --time=1-12:30:00
#SBATCH --output=pretrain-%j.log
#SBATCH --gres=gpu:8
#SBATCH --mem=900G
#SBATCH --partition=h100

set -euo pipefail
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol show node "$head_node" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_ADDR="${address:-$head_node}"
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

exec srun --kill-on-bad-exit=1 --cpus-per-task=96 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node=8 \
--rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" \
train.py --note 'it'"'"'s $HOME'
"""


def test_script_is_golden() -> None:
    job = Job(
        command=("train.py", "--note", "it's $HOME"),
        name="pretrain",
        nodes=2,
        gpus=8,
        cores=96,
        memory_gb=900,
        seconds=36.5 * 3600,
        torchrun=True,
        partition="h100",
    )
    assert SlurmLauncher().render(job) == GOLDEN


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    reason = slurm_cluster.missing()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            environment = stack.enter_context(slurm_cluster.running(tmp_path_factory.mktemp("slurm")))
        except slurm_cluster.ClusterError as error:  # the machine's fault, not the adapter's
            pytest.skip(str(error))
        yield environment


def launch(cluster: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "highrise.cli", "compute", "launch", "--target", "slurm", *arguments]
    return subprocess.run(command, env=cluster, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_two_nodes_run_and_see_their_devices(cluster: dict[str, str], tmp_path: Path) -> None:
    show = 'echo "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES $MASTER_ADDR $SLURM_JOB_NUM_NODES"'
    options = ["--nodes", "2", "--gpus", "4", "--wait", "--log", "out.log"]
    done = launch(cluster, tmp_path, *options, "--", "sh", "-c", show)
    assert done.returncode == 0, done.stderr
    assert "ended with exit code 0" in done.stdout
    lines = sorted((tmp_path / "out.log").read_text().splitlines())
    assert lines == ["n1 0,1,2,3 127.0.0.1 2", "n2 0,1,2,3 127.0.0.1 2"]


def test_two_nodes_meet_at_the_rendezvous(cluster: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "meet.py"
    program.write_text(
        "import os, socket, time\n"
        "where = (os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']))\n"
        "if os.environ['SLURM_PROCID'] == '0':\n"
        "    server = socket.create_server(where); print('met', server.accept()[0].recv(9).decode())\n"
        "else:\n"
        "    for _ in range(200):\n"
        "        try: socket.create_connection(where).send(b'rank one'); break\n"
        "        except OSError: time.sleep(0.05)\n"
    )
    done = launch(cluster, tmp_path, "--nodes", "2", "--wait", "--log", "out.log", "--", sys.executable, str(program))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.log").read_text() == "met rank one\n"


def test_exit_code_comes_back_with_wait(cluster: dict[str, str], tmp_path: Path) -> None:
    assert launch(cluster, tmp_path, "--wait", "--", "sh", "-c", "exit 3").returncode == 3


def test_submission_returns_at_once(cluster: dict[str, str], tmp_path: Path) -> None:
    started = time.monotonic()
    done = launch(cluster, tmp_path, "--", "sleep", "30")
    assert done.returncode == 0 and "submitted" in done.stdout
    assert time.monotonic() - started < 20
    number = done.stdout.split()[1]
    subprocess.run(["timeout", "10", "scancel", number], env=cluster, check=True)


def test_more_than_there_is_is_refused_in_a_sentence(cluster: dict[str, str], tmp_path: Path) -> None:
    done = launch(cluster, tmp_path, "--gpus", "16", "--", "true")
    assert done.returncode == 1
    assert "Slurm refused the job" in done.stderr and done.stderr.count("\n") == 1


def test_without_sbatch_there_is_a_sentence(tmp_path: Path) -> None:
    done = launch({"PATH": str(tmp_path)}, tmp_path, "--", "true")
    assert done.returncode == 2
    assert "no `sbatch` on this machine" in done.stderr


@pytest.mark.slow
def test_torchrun_reduces_over_two_nodes(cluster: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is the extra `train`")
    program = tmp_path / "reduce.py"
    program.write_text(
        "import torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "total = torch.tensor([dist.get_rank() + 1.0]); dist.all_reduce(total)\n"
        "print(f'rank {dist.get_rank()} of {dist.get_world_size()}: {total.item()}', flush=True)\n"
        "dist.destroy_process_group()\n"
    )
    environment = {**cluster, "PATH": f"{Path(sys.executable).parent}:{cluster['PATH']}"}
    options = ["--nodes", "2", "--torchrun", "--wait", "--log", "out.log", "--time", "5 min"]
    done = launch(environment, tmp_path, *options, "--", str(program))
    text = (tmp_path / "out.log").read_text()
    assert done.returncode == 0, text
    assert {f"rank {rank} of 2: 3.0" for rank in (0, 1)} <= set(text.splitlines())
