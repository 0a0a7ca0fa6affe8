"""Floor 7, tool: the agreement between the agent's loop and what it may do."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

__all__ = ["Tool", "ToolError", "ToolResult"]


class ToolError(Exception):
    """The call cannot be carried out; the sentence goes back to the model."""


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gave: `text` for the model, `data` for the page."""

    text: str
    ok: bool = True
    data: dict[str, Any] = {}


class Tool(Protocol):
    """One thing that the agent may do. The description is fixed text: no file or server can change it."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of an object."""

    async def __call__(self, arguments: dict[str, Any]) -> ToolResult:
        """Carry out a call whose arguments were checked against `parameters`; `ToolError` when it cannot be done."""
