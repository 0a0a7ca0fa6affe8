"""Floor 7, configuration: the keys of `[agent]` in an assistant file. Knows neither backend nor index."""

from __future__ import annotations

from typing import Literal

from highrise.core.config import Config, parse_duration
from highrise.core.errors import ConfigError

__all__ = ["AgentConfig", "ToolName"]

ToolName = Literal["search", "terminal", "linter"]


class AgentConfig(Config, frozen=True, kw_only=True):
    """What the assistant offers, and how far it may go."""

    completion: bool = True
    """Ghost text for editors; false leaves /v1/completions with `suffix` and /infill out."""
    tools: tuple[ToolName, ...] = ("search", "terminal", "linter")
    """search: the sources and their files; linter: linters; terminal: tests and builds, both in a sandbox."""
    max_steps: int = 6
    """Rounds of tool calls in one answer of the agent."""
    temperature: float = 0.2
    """Of the agent and its page, when a request names none; OpenAI's routes keep OpenAI's 1.0."""
    chat_context: int = 1024
    """Tokens of sources woven into a chat prompt; 0 weaves none."""
    completion_context: int = 768
    """Tokens of a ghost-text prompt: text before and after the cursor, and sources, together."""
    context_share: float = 0.25
    """Part of a ghost-text prompt that sources may take; what they leave belongs to the file."""
    keys: Literal["auto", "always", "never"] = "auto"
    """auto asks for an API key unless the server listens on this machine only."""
    guard: bool = True
    """Check what comes in and goes out against the guardrails of floor 5."""
    sandbox: Literal["auto", "bubblewrap", "namespaces", "off"] = "auto"
    """How commands are shut in; auto takes the best there is; off refuses to run any."""
    command_timeout: str = "60 s"
    """Longest run of one command."""
    commands: tuple[str, ...] = ()
    """More programs that the terminal tool may run, by name, such as "tox"."""

    def __post_init__(self) -> None:
        if len(set(self.tools)) != len(self.tools):
            raise ConfigError(f"agent.tools names a tool twice: {', '.join(self.tools)}")
        if not 1 <= self.max_steps <= 50:
            raise ConfigError(f"agent.max_steps is {self.max_steps}; it must lie between 1 and 50")
        if not 0 <= self.temperature <= 2:
            raise ConfigError(f"agent.temperature is {self.temperature}; it must lie between 0 and 2")
        for name in ("chat_context", "completion_context"):
            value = getattr(self, name)
            if value < 0:
                raise ConfigError(f"agent.{name} is {value}; it must be 0 or more tokens")
        if self.completion and self.completion_context < 64:
            raise ConfigError(
                f"agent.completion_context is {self.completion_context}; ghost text needs at least 64 tokens"
            )
        if not 0 <= self.context_share <= 0.9:
            raise ConfigError(f"agent.context_share is {self.context_share}; it must lie between 0 and 0.9")
        if parse_duration(self.command_timeout, where="agent.command_timeout") <= 0:
            raise ConfigError(f'agent.command_timeout is "{self.command_timeout}"; it must be longer than nothing')
