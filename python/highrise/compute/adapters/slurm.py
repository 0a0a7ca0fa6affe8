"""Floor 1, Slurm: a job as an sbatch script, and its submission with `sbatch`.

One task a node; with torchrun the first node's address and a port made from the job number are the rendezvous. Uses
the command-line tools only, each under a time limit, because Slurm's clients wait for ever on a controller that is
gone.
"""

from __future__ import annotations

import contextlib
import re
import select
import shlex
import subprocess

from highrise.compute.jobs import Job
from highrise.core.errors import ComputeError, InputError

__all__ = ["SlurmLauncher"]

_SUBMIT_SECONDS = 60
_LOG = re.compile(r"[A-Za-z0-9_./%@+=-]+")

_RENDEZVOUS = """\
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol show node "$head_node" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')
export MASTER_ADDR="${address:-$head_node}"
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
"""


def _clock(seconds: float) -> str:
    """Slurm's D-HH:MM:SS."""
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    return f"{days}-{hours:02d}:{minutes:02d}:{left:02d}"


class SlurmLauncher:
    """A Slurm cluster reached through `sbatch` on this machine."""

    def render(self, job: Job) -> str:
        """The sbatch script."""
        if job.kind == "serve":
            raise InputError("Slurm ends jobs when their time is up; serve with --target kubernetes or local")
        log = str(job.log) if job.log else f"{job.name}-%j.log"
        if not _LOG.fullmatch(log):
            raise InputError(
                f"the log path {log!r} holds characters that Slurm does not take; use letters, digits, . _ / - %"
            )
        options = [
            f"--job-name={job.name}",
            f"--nodes={job.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={job.cores}",
            f"--time={_clock(job.seconds)}",
            f"--output={log}",
        ]
        if job.gpus:
            options.append(f"--gres=gpu:{job.gpus}")
        if job.memory_gb is not None:
            options.append(f"--mem={job.memory_gb}G")
        if job.partition is not None:
            options.append(f"--partition={job.partition}")
        head = "".join(f"#SBATCH {option}\n" for option in options)
        command = shlex.join(job.command)
        if job.torchrun:
            command = (
                f'torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node={max(1, job.gpus)} '
                f'--rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$MASTER_ADDR:$MASTER_PORT" {command}'
            )
        return (
            f"#!/bin/bash\n{head}\nset -euo pipefail\n{_RENDEZVOUS}\nexec srun --kill-on-bad-exit=1 "
            f"--cpus-per-task={job.cores} {command}\n"
        )

    def submit(self, job: Job) -> int:
        """Hand the script to `sbatch`; with `job.wait`, the exit code is the job's."""
        script = self.render(job)
        command = ["sbatch", "--parsable", *(["--wait"] if job.wait else [])]
        try:
            sbatch = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise InputError("no `sbatch` on this machine; run where Slurm is, or look at --dry-run") from error
        with sbatch:
            number = _job_number(sbatch, script)
            print(f"job {number} submitted; output in {job.log or f'{job.name}-%j.log'}", flush=True)
            try:
                code = sbatch.wait()  # with --wait, until the job has ended
            except KeyboardInterrupt:
                print(f"job {number} goes on; `scancel {number}` ends it", flush=True)
                sbatch.terminate()
                raise
        if job.wait:
            print(f"job {number} ended with exit code {code}")
        return code


def _job_number(sbatch: subprocess.Popen[str], script: str) -> str:
    """Hand over the script and read the job's number, the one line that sbatch prints at submission."""
    assert sbatch.stdin and sbatch.stdout and sbatch.stderr
    with contextlib.suppress(BrokenPipeError):  # it has refused already; the reason is on its stderr
        sbatch.stdin.write(script)
        sbatch.stdin.close()
    if not select.select([sbatch.stdout], [], [], _SUBMIT_SECONDS)[0]:
        sbatch.kill()
        raise ComputeError(f"sbatch did not answer within {_SUBMIT_SECONDS} s; is the controller up (`sinfo`)?")
    number = sbatch.stdout.readline().strip().split(";")[0]
    if not number:
        reason = sbatch.stderr.read().strip().splitlines()
        raise ComputeError(f"Slurm refused the job: {reason[-1] if reason else f'exit code {sbatch.wait()}'}")
    return number
