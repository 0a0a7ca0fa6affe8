"""Floor 7, confinement: the last step before a command runs; started as a script, imports nothing of Highrise.

Sets limits on memory, file size, open files and CPU time. Asked for `namespaces`, it first leaves for a user, mount,
network and process space of its own: no network, everything read-only but the workspace, its `.git` read-only too, and
hidden folders empty. When any of that fails the command is not run. Linux only; knows nothing of what is allowed.

Usage: python -I confine.py MODE WORKSPACE SECONDS MEGABYTES HIDDEN -- COMMAND...
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

_NEWNS, _NEWUSER, _NEWPID, _NEWNET, _NEWIPC = 0x20000, 0x10000000, 0x20000000, 0x40000000, 0x8000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_NOSUID, _MS_NODEV = 4096, 16384, 1 << 18, 2, 4
_MOUNT_SETATTR, _AT_RECURSIVE, _ATTR_RDONLY = 442, 0x8000, 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    _check(
        _libc.mount(source.encode() if source else None, target.encode(), kind.encode() if kind else None, flags, None),
        f"mount {target}",
    )


def _read_only(path: str, *, on: bool) -> None:
    attributes = struct.pack("QQQQ", _ATTR_RDONLY if on else 0, 0 if on else _ATTR_RDONLY, 0, 0)
    _check(
        _libc.syscall(_MOUNT_SETATTR, -100, path.encode(), _AT_RECURSIVE, attributes, len(attributes)),
        f"mount_setattr {path}",
    )


def _enter_namespaces(workspace: str, hidden: list[str]) -> None:
    user, group = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEWUSER | _NEWNS | _NEWNET | _NEWIPC | _NEWPID), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - this script imports as little as possible
            file.write(text)
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount(workspace, workspace, None, _MS_BIND | _MS_REC)
    closed = os.path.join(workspace, ".git")  # noqa: PTH118
    if os.path.exists(closed):  # noqa: PTH110
        _mount(closed, closed, None, _MS_BIND | _MS_REC)
    _read_only("/", on=True)
    _read_only(workspace, on=False)
    if os.path.exists(closed):  # noqa: PTH110
        _read_only(closed, on=True)
    for folder in hidden:
        if os.path.isdir(folder):  # noqa: PTH112
            _mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV)
    if not workspace.startswith("/tmp/"):
        _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV)


def _limit(seconds: int, megabytes: int) -> None:
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_FSIZE, 256 << 20),
        (resource.RLIMIT_NOFILE, 1024),
    ):
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Confine this process and become the command."""
    split = sys.argv.index("--")
    mode, workspace, seconds, megabytes, hidden = sys.argv[1:split]
    command = sys.argv[split + 1 :]
    try:
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
        if mode == "namespaces":
            _enter_namespaces(workspace, [folder for folder in hidden.split(os.pathsep) if folder])
            child = os.fork()
            if child:
                _, status = os.waitpid(child, 0)
                sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
            _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV)
        os.chdir(workspace)
        _limit(int(seconds), int(megabytes))
    except OSError as error:
        print(f"confine: {error}", file=sys.stderr)
        sys.exit(125)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
