"""Floor 7, sandbox: runs one command shut in: no network, root read-only, the workspace writable but not its `.git`.

bubblewrap where it is installed, else namespaces made by `agent/confine.py`; where neither works, it refuses with a
sentence and runs nothing. No daemon, no root. Which commands are allowed: `agent/tools/run_command.py`.
The shape follows codex's Linux sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from highrise.core.errors import AgentError

__all__ = ["Ran", "Sandbox", "SandboxError"]

_CONFINE = str(Path(__file__).with_name("confine.py"))
_OUTPUT_LIMIT = 1 << 20
_MEGABYTES = 4096
_SECRET_FOLDERS = (".ssh", ".aws", ".gnupg", ".kube", ".config", ".docker", ".azure", ".cache/highrise")


class SandboxError(AgentError):
    """Nothing was run."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """A command that ran: how it ended and what it printed, both streams together."""

    code: int
    output: str
    seconds: float
    timed_out: bool = False
    cut: bool = False


class Sandbox:
    """Commands in `workspace` under `mode`; "auto" tries bubblewrap, then namespaces."""

    def __init__(
        self,
        workspace: Path,
        *,
        mode: Literal["auto", "bubblewrap", "namespaces", "off"] = "auto",
        timeout: float = 60.0,
        hidden: Sequence[Path] = (),
    ) -> None:
        self.workspace = workspace.resolve()
        self.timeout = timeout
        self._hidden = [path for path in hidden if path.is_dir()]
        self._mode = mode
        self._chosen: str | None = None

    def kind(self) -> str:
        """The isolation in force, tried once; `SandboxError` when there is none."""
        if self._chosen is None:
            self._chosen = self._choose()
        return self._chosen

    def _choose(self) -> str:
        if self._mode == "off":
            raise SandboxError('commands are switched off (agent.sandbox is "off"); nothing was run')
        kinds = ("bubblewrap", "namespaces") if self._mode == "auto" else (self._mode,)
        reasons = []
        for kind in kinds:
            reason = self._try(kind)
            if not reason:
                return kind
            reasons.append(f"{kind}: {reason}")
        raise SandboxError(
            f"no sandbox works on this machine ({'; '.join(reasons)}), so nothing was run; install bubblewrap, or "
            "allow unprivileged user namespaces"
        )

    def _try(self, kind: str) -> str:
        """Why this kind does not work here, or nothing."""
        if not sys.platform.startswith("linux"):
            return "Linux only"
        if kind == "bubblewrap" and shutil.which("bwrap") is None:
            return "bwrap is not installed"
        # Believed only after it was seen to close the network and the root.
        try:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                probe = (
                    "import socket,os,sys\n"
                    f"try: socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 1); sys.exit(3)\n"
                    "except OSError: sys.exit(4 if os.access('/etc', os.W_OK) else 0)"
                )
                command = self._command(kind, [sys.executable, "-I", "-S", "-c", probe], 10)
                ran = subprocess.run(command, capture_output=True, timeout=20, env=self._environment(), check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if ran.returncode == 0:
            return ""
        if ran.returncode in (3, 4):
            return "the network is not closed" if ran.returncode == 3 else "the root is not read-only"
        return ran.stderr.decode("utf-8", "replace").strip().replace("\n", " ")[:200] or f"exit code {ran.returncode}"

    def _environment(self) -> dict[str, str]:
        """Only what commands need; no credentials travel in."""
        places = [self.workspace / ".venv" / "bin", Path(sys.prefix) / "bin"]
        path = os.pathsep.join(
            [*(str(place) for place in places if place.is_dir()), "/usr/local/bin", "/usr/bin", "/bin"]
        )
        return {
            "PATH": path,
            "HOME": "/tmp",
            "TMPDIR": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }

    def _secret_folders(self) -> list[str]:
        home = Path("~").expanduser()
        folders = [home / name for name in _SECRET_FOLDERS] + self._hidden
        return [str(folder) for folder in folders if folder.is_dir() and not self.workspace.is_relative_to(folder)]

    def _command(self, kind: str, command: Sequence[str], seconds: float) -> list[str]:
        workspace = str(self.workspace)
        limits = [str(max(1, int(seconds))), str(_MEGABYTES)]
        inner = [sys.executable, "-I", "-S", _CONFINE]
        if kind == "namespaces":
            return [*inner, "namespaces", workspace, *limits, os.pathsep.join(self._secret_folders()), "--", *command]
        line = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"]
        line += ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", workspace, workspace]
        git = self.workspace / ".git"
        if git.exists():
            line += ["--ro-bind", str(git), str(git)]
        for folder in self._secret_folders():
            line += ["--tmpfs", folder]
        if sys.prefix.startswith("/tmp/"):
            line += ["--ro-bind", sys.prefix, sys.prefix]
        line += ["--chdir", workspace, "--"]
        return [*line, *inner, "limits", workspace, *limits, "", "--", *command]

    async def run(self, command: Sequence[str], *, timeout: float | None = None) -> Ran:
        """Run `command` (no shell) and wait for it; after `timeout` seconds it is killed with all its children."""
        seconds = self.timeout if timeout is None else min(timeout, self.timeout)
        kind = await asyncio.to_thread(self.kind)
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *self._command(kind, command, seconds),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(),
            start_new_session=True,
        )
        timed_out = False
        output = bytearray()
        try:
            async with asyncio.timeout(seconds):
                await _read(process, output)
                await process.wait()
        except TimeoutError:
            timed_out = True
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return Ran(
            code=process.returncode or 0,
            output=output.decode("utf-8", "replace"),
            seconds=time.monotonic() - started,
            timed_out=timed_out,
            cut=len(output) >= _OUTPUT_LIMIT,
        )


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    """Everything that the process prints; past the limit it is read and dropped, so that the process goes on."""
    assert process.stdout is not None
    while block := await process.stdout.read(1 << 16):
        if len(output) < _OUTPUT_LIMIT:
            output += block[: _OUTPUT_LIMIT - len(output)]
