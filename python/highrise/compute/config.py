"""Floor 1, configuration: where a build's jobs run."""

from __future__ import annotations

from typing import Literal

from highrise.core.config import Config

__all__ = ["ComputeConfig"]


class ComputeConfig(Config, frozen=True, kw_only=True):
    """The `compute` table of assistant.toml; the keys are those of `highrise compute launch`."""

    target: Literal["local", "slurm", "kubernetes"] = "local"
    nodes: int = 1
    gpus: int = 0
    """Graphics processors a node."""
    time: str = "1 h"
    image: str | None = None
    """Container image; needed by Kubernetes."""
    partition: str | None = None
    """Slurm partition."""
    namespace: str | None = None
    """Kubernetes namespace."""
