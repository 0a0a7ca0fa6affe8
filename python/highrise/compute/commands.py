"""The commands of floor `compute`, as data; each function is imported only when its command is called."""

from __future__ import annotations

from highrise.core.command import Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = ()
