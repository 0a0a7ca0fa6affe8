"""Floor 0, errors: what a user may do wrong, one class a floor.

A message is one sentence with the values and the remedy. `exit_code` is what the command line leaves with:
2 for bad usage, configuration or input, 1 for work that was asked for rightly and failed.
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "AlignError",
    "ComputeError",
    "ConfigError",
    "DataError",
    "EncodeError",
    "HighriseError",
    "InputError",
    "ServeError",
    "TrainError",
]


class HighriseError(Exception):
    """Any failure that a user can understand and mend."""

    exit_code: int = 1


class InputError(HighriseError):
    """Bad usage or bad input on any floor: nothing was done, nothing was lost."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration that contradicts itself, names an unknown key, or holds a value of a wrong type."""


class ComputeError(HighriseError):
    """Floor 1: a machine, a plan or a launch."""


class DataError(HighriseError):
    """Floor 2: sources, filters, shards."""


class EncodeError(HighriseError):
    """Floor 3: vocabularies, token files, indexes."""


class TrainError(HighriseError):
    """Floor 4: training and weights."""


class AlignError(HighriseError):
    """Floor 5: tuning, preferences, guardrails."""


class ServeError(HighriseError):
    """Floor 6: engine and wire."""


class AgentError(HighriseError):
    """Floor 7: tools, people, editors."""
