"""The commands of the whole building: up, build, fetch, models."""

from __future__ import annotations

from highrise.core.command import Argument, Command

__all__ = ["COMMANDS"]

_CONFIG = Argument(
    names=("config",),
    nargs="?",
    metavar="assistant.toml",
    help="the description of the assistant; without it assistant.toml of this folder, else the preset",
)
_PRESET = Argument(
    names=("--preset",),
    help="start from a preset when there is no file: laptop (default), small, scratch, tiny",
)
_RETUNE = Argument(
    names=("--retune",), flag=True, help="tune the adapter again though little of the sources, or nothing, has changed"
)
_JSON = Argument(names=("--json",), flag=True, help="print JSON")

COMMANDS: tuple[Command, ...] = (
    Command(
        path=("up",),
        help="build what is not built, then serve the assistant until Ctrl-C",
        example="highrise up --preset laptop --check",
        run="highrise.up:up",
        arguments=(
            _CONFIG,
            _PRESET,
            _RETUNE,
            Argument(names=("--check",), flag=True, help="serve, ask itself three questions over HTTP, and leave"),
            Argument(names=("--host",), help="address to listen on instead of the configured one"),
            Argument(names=("--port",), type=int, help="port to listen on instead of the configured one"),
        ),
    ),
    Command(
        path=("build",),
        help="build every stage of the assistant and leave",
        example="highrise build assistant.toml",
        run="highrise.up:build",
        arguments=(
            _CONFIG,
            _PRESET,
            _RETUNE,
            Argument(names=("--dry-run",), flag=True, help="print the resolved file and check sources and models"),
        ),
    ),
    Command(
        path=("fetch",),
        help="fetch models of the catalogue into the cache; each file is verified by its sha256",
        example="highrise fetch qwen2.5-coder-0.5b minilm-l6",
        run="highrise.core.catalogue_cli:fetch",
        arguments=(Argument(names=("models",), nargs="+", help="names of the catalogue (see `highrise models`)"),),
    ),
    Command(
        path=("models",),
        help="list the model catalogue",
        example="highrise models --json",
        run="highrise.core.catalogue_cli:models",
        arguments=(_JSON,),
    ),
)
