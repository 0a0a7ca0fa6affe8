"""Floor 7, tool: run a linter, a test or a build in the sandbox. Which programs may run is decided here, by name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from highrise.agent.sandbox import Sandbox, SandboxError
from highrise.agent.tools.base import ToolError, ToolResult

__all__ = ["LINTERS", "TESTERS", "RunCommand"]

LINTERS = frozenset(
    str.split(
        "ruff flake8 pylint mypy pyright black isort bandit eslint prettier tsc shellcheck gofmt clang-format "
        "cargo-clippy hadolint yamllint"
    )
)
"""Programs of the linter."""

TESTERS = frozenset(str.split("pytest tox nox jest vitest mocha ctest make ninja"))
"""Programs of the terminal."""

_MODULES = {
    "linter": {"py_compile", "compileall", "ruff", "mypy", "flake8", "pylint", "black"},
    "terminal": {"pytest", "unittest"},
}
_VERBS = {
    "linter": {("cargo", "check"), ("cargo", "clippy"), ("cargo", "fmt"), ("go", "vet"), ("npm", "run lint")},
    "terminal": {
        ("cargo", "test"),
        ("cargo", "build"),
        ("go", "test"),
        ("go", "build"),
        ("npm", "test"),
        ("npm", "run test"),
        ("npm", "run build"),
    },
}
_SHELL = set("|&;<>`$\n")
_SHOWN = 6000


class RunCommand:
    """One command without a shell, shut in; `kinds` are the configured ones of "linter" and "terminal"."""

    name = "run_command"
    parameters: dict[str, Any] = {  # noqa: RUF012 - never changed
        "type": "object",
        "properties": {
            "command": {
                "type": "string",
                "description": "for example: ruff check src/app.py, or: pytest -q tests/test_app.py",
            }
        },
        "required": ["command"],
    }

    def __init__(self, sandbox: Sandbox, *, kinds: Iterable[str], more: Iterable[str] = ()) -> None:
        self._sandbox = sandbox
        self._kinds = tuple(kinds)
        self._programs = set(more)
        if "linter" in self._kinds:
            self._programs |= LINTERS
        if "terminal" in self._kinds:
            self._programs |= TESTERS
        what = " or ".join({"linter": "a linter", "terminal": "tests or a build"}[kind] for kind in self._kinds)
        self.description = (
            f"Run {what} in the repository, in a sandbox without network. One command, no shell operators."
        )

    async def __call__(self, arguments: dict[str, Any]) -> ToolResult:
        """Run the command if it is allowed; its exit code and the end of its output come back."""
        command = self._parse(arguments["command"])
        try:
            ran = await self._sandbox.run(command)
        except SandboxError as error:
            raise ToolError(f"The command was not run: {error}.") from error
        output = ran.output if len(ran.output) <= _SHOWN else f"(the start is left out)\n…{ran.output[-_SHOWN:]}"
        how = f"was stopped after {ran.seconds:.0f} s" if ran.timed_out else f"exit code {ran.code}"
        text = f"{how}, {ran.seconds:.1f} s\n{output.strip() or '(no output)'}"
        data = {
            "command": shlex.join(command),
            "code": ran.code,
            "timed_out": ran.timed_out,
            "sandbox": self._sandbox.kind(),
        }
        return ToolResult(text=text, ok=ran.code == 0 and not ran.timed_out, data=data)

    def _parse(self, text: str) -> list[str]:
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise ToolError(f"The command cannot be read: {error}.") from None
        if not command:
            raise ToolError("The command is empty.")
        # Quoted text may hold anything: there is no shell. Bare operators show that the model believes in one.
        bare = next(
            (sign for sign in shlex.shlex(text, posix=True, punctuation_chars=True) if set(sign) <= _SHELL), None
        )
        if bare is not None:
            raise ToolError(f"Shell operators such as '{bare}' are not possible; give one plain command.")
        if not self._is_allowed(command):
            raise ToolError(
                f"'{' '.join(command[:2])}' may not be run. Possible are: {', '.join(sorted(self._programs))}, "
                f"{', '.join(' '.join(verb) for kind in self._kinds for verb in sorted(_VERBS[kind]))}, "
                f"python -m {', '.join(sorted(name for kind in self._kinds for name in _MODULES[kind]))}."
            )
        return command

    def _is_allowed(self, command: list[str]) -> bool:
        program = command[0]
        if "/" in program and not self._is_own(program):
            return False
        name = Path(program).name
        if name in self._programs:
            return True
        if name in ("python", "python3") and command[1:2] == ["-m"] and len(command) > 2:
            return any(command[2] in _MODULES[kind] for kind in self._kinds)
        verbs = {(name, " ".join(command[1 : 1 + count])) for count in (1, 2)}
        return any(verbs & _VERBS[kind] for kind in self._kinds)

    def _is_own(self, program: str) -> bool:
        """A program by path is taken from the workspace's own environment only."""
        return program.startswith((".venv/bin/", "./.venv/bin/", "node_modules/.bin/", "./node_modules/.bin/"))
