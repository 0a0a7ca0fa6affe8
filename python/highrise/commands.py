"""The commands of the whole building: up, build."""

from __future__ import annotations

from highrise.core.command import Command

__all__ = ["COMMANDS"]

COMMANDS: tuple[Command, ...] = ()
