"""Floor 7, toolbox: the tools that a configuration allows, and the gate through which every call goes.

Checks the arguments against the schema, runs the tool, shortens its output and takes out what the guardrails find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from highrise.agent.config import AgentConfig
from highrise.agent.sandbox import Sandbox
from highrise.agent.tools.base import Tool, ToolError, ToolResult
from highrise.agent.tools.read_file import ReadFile
from highrise.agent.tools.run_command import RunCommand
from highrise.agent.tools.search_sources import SearchSources
from highrise.core.config import parse_duration
from highrise.serve.protocol import FunctionDefinition
from highrise.serve.protocol import Tool as WireTool

if TYPE_CHECKING:
    from highrise.encode.index import SearchIndex

__all__ = ["Toolbox"]

_MAX_CHARACTERS = 12_000
_KINDS: dict[str, type | tuple[type, ...]] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


class Toolbox:
    """`screen` takes out of a tool's output what must not reach the model."""

    def __init__(self, tools: Sequence[Tool], *, screen: Callable[[str], str] = lambda text: text) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._screen = screen

    @classmethod
    def of(
        cls,
        config: AgentConfig,
        *,
        root: Path,
        index: SearchIndex | None,
        hidden: Sequence[Path] = (),
        screen: Callable[[str], str] = lambda text: text,
    ) -> Toolbox:
        """The tools of a configuration; the search is left out where there is no index."""
        tools: list[Tool] = []
        if "search" in config.tools:
            if index is not None:
                tools.append(SearchSources(index))
            tools.append(ReadFile(root))
        kinds = [kind for kind in ("linter", "terminal") if kind in config.tools]
        if kinds:
            timeout = parse_duration(config.command_timeout)
            sandbox = Sandbox(root, mode=config.sandbox, timeout=timeout, hidden=hidden)
            tools.append(RunCommand(sandbox, kinds=kinds, more=config.commands))
        return cls(tools, screen=screen)

    @property
    def names(self) -> list[str]:
        """What there is."""
        return list(self._tools)

    def wire(self) -> list[WireTool]:
        """The tools as a chat request describes them."""
        return [
            WireTool(
                function=FunctionDefinition(name=tool.name, description=tool.description, parameters=tool.parameters)
            )
            for tool in self._tools.values()
        ]

    async def call(self, name: str, arguments_json: str) -> ToolResult:
        """Carry out one call; whatever goes wrong is a sentence in the result."""
        tool = self._tools.get(name)
        try:
            if tool is None:
                raise ToolError(f"There is no tool '{name}'; there are: {', '.join(self._tools)}.")
            result = await tool(_checked(arguments_json, tool.parameters))
        except ToolError as error:
            return ToolResult(text=str(error), ok=False)
        text = result.text
        if len(text) > _MAX_CHARACTERS:
            text = text[:_MAX_CHARACTERS] + f"\n({len(text) - _MAX_CHARACTERS} more characters are left out.)"
        return ToolResult(text=self._screen(text), ok=result.ok, data=result.data)


def _checked(arguments_json: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The arguments as the schema wants them: models err in them, and a clear sentence lets them try again."""
    try:
        arguments = json.loads(arguments_json or "{}")
    except ValueError as error:
        raise ToolError(f"The arguments are not valid JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise ToolError("The arguments must be a JSON object.")
    properties = schema["properties"]
    for name in schema.get("required", ()):
        if name not in arguments:
            raise ToolError(f"The argument '{name}' is missing.")
    checked = {}
    for name, value in arguments.items():
        if name not in properties:
            raise ToolError(f"There is no argument '{name}'; there are: {', '.join(properties)}.")
        kind = properties[name]["type"]
        if kind == "integer" and isinstance(value, str) and value.strip().lstrip("-").isdigit():
            value = int(value)  # a common slip of small models
        if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise ToolError(f"The argument '{name}' must be of type {kind}.")
        checked[name] = value
    return checked
