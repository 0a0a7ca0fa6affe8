"""Floor 6, command line: `highrise serve MODEL`. Opens the engine, puts the routes over it, says where it listens."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from highrise.core.catalogue import locate
from highrise.core.errors import InputError
from highrise.core.progress import human_seconds
from highrise.serve.config import ServeConfig
from highrise.serve.engine import Engine
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.runner import EngineRunner
from highrise.serve.server import address_of, bind, run_app

__all__ = ["serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Load the model, listen, serve until SIGINT or SIGTERM."""
    ServeConfig(port=arguments.port, threads=arguments.threads, max_context=arguments.max_context)  # checks the values
    adapter = None if arguments.adapter is None else Path(arguments.adapter)
    if adapter is not None and not adapter.is_dir():
        raise InputError(
            f"{adapter} is not an adapter folder (it has adapter_config.json and adapter_model.safetensors)"
        )
    with bind(arguments.host, arguments.port) as listener:
        started = time.monotonic()
        path = locate(arguments.model, download=True, say=_say)
        engine = Engine.load(
            path,
            weights=arguments.weights,
            adapter=adapter,
            threads=arguments.threads,
            isa=arguments.kernels,
            max_context=arguments.max_context,
        )
        embedder = None
        if arguments.embedder is not None:
            from highrise.encode.minilm import MiniLm

            embedder = MiniLm.load(locate(arguments.embedder, download=True, say=_say), name=arguments.embedder)
        backend = EngineBackend(
            engine,
            EngineRunner(engine),
            name=arguments.name,
            aliases=(arguments.model,),
            embedder=embedder,
            max_waiting=arguments.max_waiting,
        )
        app = serve_app(backend)
        url = address_of(listener)
        _say(f"{backend.name}: weights {arguments.weights}, context {engine.max_context:,} tokens")
        run_app(app, listener, on_ready=lambda: _ready(url, time.monotonic() - started))
    return 0


def _ready(url: str, seconds: float) -> None:
    _say(f"listening on {url} (ready in {human_seconds(seconds)}); OpenAI's clients use {url}/v1; Ctrl-C stops")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
