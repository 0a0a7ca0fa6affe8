"""Floor 1, control groups: what a container or batch system lets this process use of the machine.

Reads cgroup v2 and v1 files below a root that a test can replace. Knows nothing of cores or memory sticks; a file
that is absent or says "max" is no limit.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["Limits", "read_limits"]

_NO_LIMIT = 1 << 60  # cgroup v1 writes a page-aligned 2^63 where there is none


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of the group; None where there is none."""

    cores: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    if text is None or not text.lstrip("-").isdigit():
        return None
    return int(text)


def _groups(membership: str) -> dict[str, str]:
    """Controller name to group path, from /proc/self/cgroup; cgroup v2 has the empty name."""
    groups: dict[str, str] = {}
    for line in membership.splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3:
            for controller in fields[1].split(","):
                groups[controller] = fields[2]
    return groups


def _ancestors(root: Path, group: str) -> list[Path]:
    """The folders of the group and of all groups around it, innermost first."""
    parts = [part for part in group.split("/") if part and part != ".."]
    return [root.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _smallest(values: list[float]) -> float | None:
    return min(values) if values else None


def read_limits(*, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Limits:
    """The tightest limit on the way from this process's group up to the root."""
    groups = _groups(_text(membership) or "")
    cores: list[float] = []
    memory: list[tuple[int, int | None]] = []
    for folder in _ancestors(root, groups.get("", "/")):  # version 2
        quota = (_text(folder / "cpu.max") or "").split()
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
            cores.append(int(quota[0]) / int(quota[1]))
        limit = _number(folder / "memory.max")
        if limit is not None:
            memory.append((limit, _number(folder / "memory.current")))
    for folder in _ancestors(root / "cpu", groups.get("cpu", "/")):  # version 1
        amount, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if amount is not None and period and amount > 0:
            cores.append(amount / period)
    for folder in _ancestors(root / "memory", groups.get("memory", "/")):
        limit = _number(folder / "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT:
            memory.append((limit, _number(folder / "memory.usage_in_bytes")))
    tightest = min(memory, default=(None, None), key=lambda pair: pair[0] if pair[0] is not None else _NO_LIMIT)
    return Limits(cores=_smallest(cores), memory_bytes=tightest[0], memory_used_bytes=tightest[1])
