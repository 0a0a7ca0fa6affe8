"""What a shut-in command can and cannot do, under each kind of isolation that works on this machine."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from highrise.agent.sandbox import Ran, Sandbox, SandboxError


@pytest.fixture(params=["bubblewrap", "namespaces"])
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> Sandbox:
    workspace = tmp_path / "work"
    (workspace / ".git").mkdir(parents=True)
    (workspace / ".git" / "config").write_text("[core]\n")
    (workspace / "keys").mkdir()
    (workspace / "keys" / "secret").write_text("hr-secret")
    (tmp_path / "outside").write_text("untouched")
    made = Sandbox(workspace, mode=request.param, timeout=20, hidden=[workspace / "keys"])
    try:
        made.kind()
    except SandboxError as error:
        pytest.skip(str(error))
    return made


def run(sandbox: Sandbox, code: str, timeout: float | None = None) -> Ran:
    return asyncio.run(sandbox.run([sys.executable, "-c", code], timeout=timeout))


def test_it_runs_and_writes_in_the_workspace(sandbox: Sandbox) -> None:
    ran = run(sandbox, "import os; open('made', 'w').write('x'); print(os.getcwd())")
    assert (ran.code, ran.output.strip()) == (0, str(sandbox.workspace))
    assert (sandbox.workspace / "made").read_text() == "x"


def test_exit_codes_come_back(sandbox: Sandbox) -> None:
    assert run(sandbox, "raise SystemExit(7)").code == 7
    missing = asyncio.run(sandbox.run(["no-such-program"]))
    assert missing.code == 127
    assert "no-such-program" in missing.output


def test_git_is_read_only(sandbox: Sandbox) -> None:
    ran = run(sandbox, "print(open('.git/config').read()); open('.git/hooks', 'w')")
    assert ran.code != 0
    assert "[core]" in ran.output
    assert not (sandbox.workspace / ".git" / "hooks").exists()


def test_nothing_outside_is_written(sandbox: Sandbox) -> None:
    outside = sandbox.workspace.parent / "outside"
    ran = run(sandbox, f"open({str(outside)!r}, 'w').write('changed')")
    assert ran.code != 0 or outside.read_text() == "untouched"
    assert outside.read_text() == "untouched"
    assert run(sandbox, "open('/etc/passwd', 'a')").code != 0


def test_hidden_folders_are_empty(sandbox: Sandbox) -> None:
    assert run(sandbox, "import os; print(os.listdir('keys'))").output.strip() == "[]"


def test_no_network(sandbox: Sandbox) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = run(sandbox, f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)")
    assert ran.code != 0
    assert "Error" in ran.output


def test_a_long_command_is_killed_with_its_children(sandbox: Sandbox) -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(4.5); open(\"late\", \"w\")'])\n"
        "print('started', flush=True); time.sleep(60)"
    )
    started = time.monotonic()
    ran = run(sandbox, code, timeout=2.5)
    assert ran.timed_out
    assert "started" in ran.output
    assert time.monotonic() - started < 8
    time.sleep(max(0.0, started + 6 - time.monotonic()))
    assert not (sandbox.workspace / "late").exists()


def test_much_output_is_cut(sandbox: Sandbox) -> None:
    ran = run(sandbox, "print('x' * (3 << 20))")
    assert ran.code == 0
    assert ran.cut
    assert len(ran.output) == 1 << 20


def test_credentials_do_not_travel(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    assert "SECRET_TOKEN" not in run(sandbox, "import os; print(dict(os.environ))").output


def test_off_refuses(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="nothing was run"):
        asyncio.run(Sandbox(tmp_path, mode="off").run(["true"]))


def test_without_isolation_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path)
    monkeypatch.setattr(sandbox, "_try", lambda kind: "not possible here")
    with pytest.raises(SandboxError, match="nothing was run; install bubblewrap"):
        asyncio.run(sandbox.run(["touch", "made"]))
    assert not (tmp_path / "made").exists()
