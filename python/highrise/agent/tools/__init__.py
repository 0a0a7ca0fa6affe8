"""Floor 7, tools: what the agent may do, one file each, and the one gate that every call passes.

A tool is offered only when the configuration names it. `Toolbox.call` checks arguments, runs the tool, shortens and
screens its output; a tool's failure is an answer to the model, never an error of the server.
"""

from highrise.agent.tools.base import Tool, ToolResult
from highrise.agent.tools.toolbox import Toolbox

__all__ = ["Tool", "ToolResult", "Toolbox"]
