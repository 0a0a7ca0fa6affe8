"""Floor 1, job: one command and what it needs, the same for every target. Knows nothing of Slurm or Kubernetes."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal

import msgspec

from highrise.core.config import parse_duration
from highrise.core.errors import InputError

__all__ = ["Job", "make_job"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,-]*")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and on how much; checked when it is made, so that no text of it can change a rendered file's
    meaning.
    """

    command: tuple[str, ...]
    name: str = "highrise"
    kind: Literal["job", "serve"] = "job"
    """A job ends; a service is kept running and has a port."""
    nodes: int = 1
    gpus: int = 0
    """Graphics processors a node."""
    cores: int = 1
    """Processor cores a node."""
    memory_gb: int | None = None
    """Memory a node, in GB."""
    seconds: float = 3600
    torchrun: bool = False
    """Start one process a GPU on every node with torchrun and a c10d rendezvous."""
    port: int = 8080
    log: Path | None = None
    image: str | None = None
    partition: str | None = None
    namespace: str | None = None
    replicas: int = 1
    wait: bool = False
    """Come back only when the job has ended, with its exit code (this machine always does)."""

    def __post_init__(self) -> None:
        if not self.command:
            raise InputError("no command to launch: write it after --, for example `-- python train.py`")
        for text in self.command:
            if "\0" in text or "\n" in text:
                raise InputError(f"the argument {text!r} holds a line break or a zero byte; put such text in a file")
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"job name {self.name!r} is not usable: at most 53 lower-case letters, digits, inner hyphens"
            )
        for label, least in (("nodes", 1), ("gpus", 0), ("cores", 1), ("port", 1), ("replicas", 1)):
            if not least <= getattr(self, label) <= 65_535:
                raise InputError(f"{label} is {getattr(self, label)}; it must be {least} to 65535")
        if self.memory_gb is not None and self.memory_gb < 1:
            raise InputError(f"memory is {self.memory_gb} GB; it must be at least 1")
        if not 60 <= self.seconds <= 365 * 86_400:
            raise InputError(f"time is {self.seconds:g} s; a job may take 1 minute to 365 days")
        if self.partition is not None and not _WORD.fullmatch(self.partition):
            raise InputError(f"partition {self.partition!r} is not a name that Slurm takes")
        if self.namespace is not None and not _NAME.fullmatch(self.namespace):
            raise InputError(f"namespace {self.namespace!r} is not a name that Kubernetes takes")
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise InputError(f"image {self.image!r} is not a container image's name")
        if self.kind == "serve" and self.torchrun:
            raise InputError("--serve and --torchrun contradict each other: a service starts its own processes")


def make_job(arguments: argparse.Namespace) -> Job:
    """The job that the command line describes."""
    command = list(arguments.argv)
    if command[:1] == ["--"]:
        command = command[1:]
    return Job(
        command=tuple(command),
        name=arguments.name,
        kind="serve" if arguments.serve else "job",
        nodes=arguments.nodes,
        gpus=arguments.gpus,
        cores=arguments.cores,
        memory_gb=arguments.memory,
        seconds=parse_duration(arguments.time, where="--time"),
        torchrun=arguments.torchrun,
        port=arguments.port,
        log=arguments.log,
        image=arguments.image,
        partition=arguments.partition,
        namespace=arguments.namespace,
        replicas=arguments.replicas,
        wait=arguments.wait,
    )
