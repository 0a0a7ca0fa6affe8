"""Floor 1, launch: the contract of a target that runs jobs, and the registry where targets are found.

A target of another package is found through the entry-point group `highrise.adapters`, by the name `launch-NAME`.
Knows nothing of any target.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Protocol

from highrise.compute.jobs import Job
from highrise.core.errors import InputError

__all__ = ["Launcher", "find_launcher", "launcher_names"]

GROUP = "highrise.adapters"
_PREFIX = "launch-"
_OWN = {
    "local": "highrise.compute.adapters.local:LocalLauncher",
    "slurm": "highrise.compute.adapters.slurm:SlurmLauncher",
    "kubernetes": "highrise.compute.adapters.kubernetes:KubernetesLauncher",
}


class Launcher(Protocol):
    """A place where a job runs. Made without arguments; both methods leave the job as it is."""

    def render(self, job: Job) -> str:
        """The whole text that `submit` would hand over, ending in a line break; `InputError` for what the target
        cannot do.
        """

    def submit(self, job: Job) -> int:
        """Start the job and return the exit code for the command line; prints what it did."""


def _foreign() -> dict[str, str]:
    return {
        point.name.removeprefix(_PREFIX): point.value
        for point in entry_points(group=GROUP)
        if point.name.startswith(_PREFIX)
    }


def launcher_names() -> tuple[str, ...]:
    """Every target that can be named, our own first."""
    return tuple({**_OWN, **_foreign()})


def find_launcher(name: str) -> Launcher:
    """The target of that name; our own names cannot be taken over by another package."""
    known = {**_foreign(), **_OWN}
    if name not in known:
        raise InputError(f"no target {name!r} to launch on; known are {', '.join(launcher_names())}")
    module, _, attribute = known[name].partition(":")
    try:
        made: Launcher = getattr(importlib.import_module(module), attribute)()
    except ImportError as error:
        raise InputError(f"the target {name!r} needs a package that is not installed: {error}") from error
    return made
