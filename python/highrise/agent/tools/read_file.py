"""Floor 7, tool: read a file of the workspace. Nothing outside of it, whatever links or `..` say."""

from __future__ import annotations

import asyncio
import fnmatch
import os
from pathlib import Path
from typing import Any

from highrise.agent.tools.base import ToolError, ToolResult

__all__ = ["ReadFile"]

_MAX_LINES = 400
_MAX_BYTES = 2 << 20
_CLOSED = {".git", ".highrise", ".ssh", ".aws", ".gnupg", ".env", ".netrc", ".pypirc", ".npmrc", "id_rsa", "id_ed25519"}

_CLOSED_PATTERNS = (".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "credentials", "credentials.*")


def is_closed(name: str) -> bool:
    """Whether a file or folder of this name usually holds secrets; templates such as `.env.example` stay open."""
    if name in (".env.example", ".env.sample", ".env.template"):
        return False
    return name in _CLOSED or any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in _CLOSED_PATTERNS)


class ReadFile:
    """Shows lines of a text file with their numbers."""

    name = "read_file"
    description = "Read a text file of the repository. Give the path as the search shows it, and lines if it is long."
    parameters: dict[str, Any] = {  # noqa: RUF012 - never changed
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "path relative to the repository's root"},
            "start_line": {"type": "integer", "description": "first line, 1 when left out"},
            "end_line": {"type": "integer", "description": "last line, included"},
        },
        "required": ["path"],
    }

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def __call__(self, arguments: dict[str, Any]) -> ToolResult:
        """Read the lines asked for, at most 400."""
        text = await asyncio.to_thread(self._read, arguments["path"])
        lines = text.splitlines()
        first = max(int(arguments.get("start_line", 1)), 1)
        last = min(int(arguments.get("end_line", len(lines))), first + _MAX_LINES - 1, len(lines))
        if first > max(len(lines), 1):
            raise ToolError(f"{arguments['path']} has {len(lines)} lines; line {first} is past its end.")
        shown = "\n".join(f"{number:>5}  {lines[number - 1]}" for number in range(first, last + 1))
        more = f"\n({len(lines) - last} more lines; ask for them by start_line.)" if last < len(lines) else ""
        data = {"path": arguments["path"], "start_line": first, "end_line": last}
        return ToolResult(text=(shown or "(The file is empty.)") + more, data=data)

    def _read(self, name: str) -> str:
        wanted = self._root / name
        try:
            path = wanted.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            raise ToolError(f"There is no file {name}; search_sources shows the paths there are.") from None
        self._check_inside(path, name)
        if path.is_dir():
            entries = sorted(
                one.name + ("/" if one.is_dir() else "") for one in path.iterdir() if not is_closed(one.name)
            )
            raise ToolError(f"{name} is a folder with: {', '.join(entries[:100])}")
        try:
            # The path is free of links now; O_NOFOLLOW and the look at the open file close the gap until it is read.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ToolError(f"{name} cannot be read: {error.strerror}.") from None
        with os.fdopen(descriptor, "rb") as file:
            self._check_inside(Path(os.path.realpath(f"/proc/self/fd/{descriptor}")) if _HAS_PROC else path, name)
            try:
                data = file.read(_MAX_BYTES + 1)
            except OSError as error:
                raise ToolError(f"{name} cannot be read: {error.strerror}.") from None
        if len(data) > _MAX_BYTES:
            raise ToolError(f"{name} is larger than {_MAX_BYTES >> 20} MiB.")
        if b"\0" in data:
            raise ToolError(f"{name} is not a text file.")
        return data.decode("utf-8", "replace")

    def _check_inside(self, path: Path, name: str) -> None:
        if not path.is_relative_to(self._root):
            raise ToolError(f"{name} lies outside of the repository; only files in it can be read.")
        closed = [part for part in path.relative_to(self._root).parts if is_closed(part)]
        if closed:
            raise ToolError(f"{name} is closed: {', '.join(closed)} may hold secrets.")


_HAS_PROC = Path("/proc/self/fd").is_dir()
