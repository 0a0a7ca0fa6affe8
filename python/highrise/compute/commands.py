"""The commands of floor `compute`, as data; each function is imported only when its command is called."""

from __future__ import annotations

import argparse
from pathlib import Path

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

_JSON = Argument(names=("--json",), help="print JSON", flag=True)


def _number(names: tuple[str, ...], help_text: str, default: int | None = None) -> Argument:
    return Argument(names=names, help=help_text, type=int, default=default, metavar="N")


COMMANDS: tuple[Command, ...] = (
    Command(
        path=("compute", "machine"),
        help="what this machine is and how much of it may be used",
        example="highrise compute machine --measure",
        run="highrise.compute.cli:machine",
        arguments=(
            Argument(names=("--measure",), help="also measure memory bandwidth and matrix products (2 s)", flag=True),
            _JSON,
        ),
    ),
    Command(
        path=("compute", "plan"),
        help="memory, layout, time and money of a model on a device",
        example="highrise compute plan --model llama-3-70b --device h100 --gpus 64 --tokens 1e12 --price 2.5",
        run="highrise.compute.cli:plan",
        arguments=(
            Argument(names=("--model",), help="a known shape, a GGUF file, a config.json, or a folder that holds one"),
            _number(("--layers",), "instead of --model: layers"),
            _number(("--hidden",), "hidden size"),
            _number(("--heads",), "query heads"),
            _number(("--kv-heads",), "key-value heads (as many as query heads without it)"),
            _number(("--head-dim",), "size of a head (hidden size / heads without it)"),
            _number(("--intermediate",), "size of the feed-forward layer"),
            _number(("--vocabulary",), "entries of the vocabulary"),
            Argument(names=("--tied",), help="the head is the embedding", flag=True),
            Argument(
                names=("--device",), help="cpu (this machine) or a catalogue name: h100, h200, b200, ...", default="cpu"
            ),
            _number(("--gpus",), "devices (1)", 1),
            Argument(names=("--tokens",), help="training tokens, for example 1e12", type=float),
            _number(("--sequence",), "tokens of a training sequence (4096)", 4096),
            _number(("--context",), "tokens of a served sequence (4096)", 4096),
            _number(("--batch",), "sequences decoded at a time (1)", 1),
            Argument(
                names=("--weights",), help="format of served weights: bf16, fp8, int8, int4 (bf16)", default="bf16"
            ),
            Argument(
                names=("--utilisation",), help="share of the peak that training reaches (0.4)", type=float, default=0.4
            ),
            Argument(names=("--price",), help="US dollars an hour and device", type=float),
            _JSON,
        ),
    ),
    Command(
        path=("compute", "launch"),
        help="run a command here, on Slurm or on Kubernetes",
        example="highrise compute launch --target slurm --nodes 2 --gpus 8 --torchrun --dry-run -- train.py --depth 20",
        run="highrise.compute.cli:launch",
        arguments=(
            Argument(
                names=("--target",), help="local, slurm, kubernetes or an installed adapter (local)", default="local"
            ),
            Argument(names=("--dry-run",), help="print what would be submitted", flag=True),
            Argument(names=("--wait",), help="come back when the job has ended, with its exit code (Slurm)", flag=True),
            Argument(names=("--name",), help="name of the job (highrise)", default="highrise"),
            _number(("--nodes",), "machines (1)", 1),
            _number(("--gpus",), "graphics processors a machine (0)", 0),
            _number(("--cores",), "processor cores a machine (1)", 1),
            _number(("--memory",), "memory a machine, in GB"),
            Argument(names=("--time",), help='longest run time, such as "90 min" (1 h)', default="1 h"),
            Argument(names=("--torchrun",), help="start the command with torchrun on every machine", flag=True),
            Argument(names=("--serve",), help="keep it running and give it a port (Kubernetes)", flag=True),
            _number(("--port",), "port of a service (8080)", 8080),
            _number(("--replicas",), "copies of a service (1)", 1),
            Argument(names=("--log",), help="file for the output of the command", type=Path),
            Argument(names=("--image",), help="container image (Kubernetes)"),
            Argument(names=("--partition",), help="partition (Slurm)"),
            Argument(names=("--namespace",), help="namespace (Kubernetes)"),
            Argument(names=("argv",), help="the command, after --", nargs=argparse.REMAINDER, metavar="-- CMD"),
        ),
    ),
)
