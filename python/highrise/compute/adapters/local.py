"""Floor 1, local: runs a job on this machine, in the foreground.

The command inherits standard input; its output goes to the terminal, or to the log file as well. Signals to this
process are passed on to it, and its exit code is returned (128 + n when signal n ended it).
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from types import FrameType

from highrise.compute.jobs import Job
from highrise.core.errors import InputError
from highrise.core.files import explain_os_error

__all__ = ["LocalLauncher"]

_PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class LocalLauncher:
    """This machine. One node; a GPU is used only if the command does so."""

    def command(self, job: Job) -> list[str]:
        """The command with torchrun in front when the job asks for it."""
        if job.nodes != 1:
            raise InputError(f"this machine is one node, not {job.nodes}; use --target slurm or kubernetes")
        if not job.torchrun:
            return list(job.command)
        processes = str(max(1, job.gpus))
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
            *job.command,
        ]

    def render(self, job: Job) -> str:
        """The command line as a shell would read it."""
        text = shlex.join(self.command(job))
        return f"{text} 2>&1 | tee {shlex.quote(str(job.log))}\n" if job.log else f"{text}\n"

    def submit(self, job: Job) -> int:
        """Run the command to its end and return its exit code."""
        command = self.command(job)
        try:
            log = job.log.open("wb", buffering=0) if job.log else None
        except OSError as error:
            raise explain_os_error(error, f"opening the log {job.log}") from error
        early: list[int] = []
        child: subprocess.Popen[bytes] | None = None

        def pass_on(number: int, _frame: FrameType | None) -> None:
            if child is None:
                early.append(number)
            elif child.poll() is None:
                os.killpg(child.pid, number)

        before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
        try:
            # an own session: a Ctrl-C of the terminal reaches the command and its children once, through us
            child = subprocess.Popen(
                command,
                stdout=subprocess.PIPE if log else None,
                stderr=subprocess.STDOUT if log else None,
                start_new_session=True,
                bufsize=0,
            )
            for number in early:  # came between the handlers and the start
                os.killpg(child.pid, number)
            if log and child.stdout:
                while block := child.stdout.read(65_536):
                    log.write(block)
                    sys.stdout.buffer.write(block)
                    sys.stdout.buffer.flush()
            code = child.wait()
        except BrokenPipeError:  # whoever read our output is gone
            raise
        except FileNotFoundError as error:
            raise InputError(f"no program {command[0]!r} on this machine") from error
        except OSError as error:
            doing = f"running {command[0]}" if child is None else f"writing the log {job.log}"
            raise explain_os_error(error, doing) from error
        finally:
            if child is not None and child.poll() is None:  # only after a failure: nothing is left behind
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
            if log:
                log.close()
        return 128 - code if code < 0 else code
