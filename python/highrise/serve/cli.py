"""Floor 6, command line: `highrise serve MODEL`. Opens the engine, puts the routes over it, says where it listens."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Literal

from highrise.core.catalogue import locate
from highrise.core.errors import InputError
from highrise.core.progress import human_seconds
from highrise.encode.minilm import MiniLm
from highrise.serve.config import ServeConfig
from highrise.serve.engine import Engine
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.runner import EngineRunner
from highrise.serve.server import address_of, bind, run_app

__all__ = ["open_engine_backend", "serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Load the model, listen, serve until SIGINT or SIGTERM."""
    ServeConfig(  # checks the values
        port=arguments.port,
        threads=arguments.threads,
        max_context=arguments.max_context,
        max_waiting=arguments.max_waiting,
    )
    with bind(arguments.host, arguments.port) as listener:
        started = time.monotonic()
        backend = open_engine_backend(
            arguments.model,
            weights=arguments.weights,
            threads=arguments.threads,
            adapter=arguments.adapter,
            kernels=arguments.kernels,
            max_context=arguments.max_context,
            embedder=arguments.embedder,
            max_waiting=arguments.max_waiting,
            name=arguments.name,
        )
        url = address_of(listener)
        _say(f"{backend.name}: weights {arguments.weights}, context {backend.max_context:,} tokens")
        run_app(serve_app(backend), listener, on_ready=lambda: _ready(url, time.monotonic() - started))
    return 0


def open_engine_backend(
    model: str,
    *,
    weights: Literal["stored", "int8", "int4"] = "stored",
    threads: int | None = None,
    adapter: str | None = None,
    kernels: str = "auto",
    max_context: int | None = None,
    embedder: str | None = None,
    max_waiting: int = 256,
    name: str | None = None,
) -> EngineBackend:
    """An engine with its thread, as a backend; a catalogue name is fetched when it is not in the cache."""
    if adapter is not None and not Path(adapter).is_dir():
        raise InputError(f"{adapter} is not an adapter folder (with adapter_config.json and adapter_model.safetensors)")
    engine = Engine.load(
        locate(model, download=True, say=_say),
        weights=weights,
        adapter=None if adapter is None else Path(adapter),
        threads=threads,
        isa=kernels,
        max_context=max_context,
    )
    vectors = None
    if embedder is not None:
        vectors = MiniLm.load(locate(embedder, download=True, say=_say), name=embedder)
    return EngineBackend(
        engine, EngineRunner(engine), name=name, aliases=(model,), embedder=vectors, max_waiting=max_waiting
    )


def _ready(url: str, seconds: float) -> None:
    _say(f"listening on {url} (ready in {human_seconds(seconds)}); OpenAI's clients use {url}/v1; Ctrl-C stops")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
