"""Floor 6, command line: `highrise serve MODEL`. Opens the engine, puts the routes over it, says where it listens."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from highrise.core.catalogue import locate
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import human_seconds, say
from highrise.encode.minilm import MiniLm
from highrise.serve.backend import Embedder
from highrise.serve.config import ServeConfig, parse_bytes
from highrise.serve.engine import Engine
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.http import serve_app
from highrise.serve.http_adapters import adapter_routes
from highrise.serve.runner import EngineRunner
from highrise.serve.server import address_of, bind, run_app

__all__ = ["open_embedder", "open_engine_backend", "serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Load the model, listen, serve until SIGINT or SIGTERM."""
    config = ServeConfig(
        weights=arguments.weights,
        kernels=arguments.kernels,
        host=arguments.host,
        port=arguments.port,
        threads=arguments.threads,
        max_context=arguments.max_context,
        kv_cache_dtype=arguments.kv_cache_dtype,
        max_waiting=arguments.max_waiting,
        answer_timeout=arguments.answer_timeout,
        drain=arguments.drain,
        log_format=arguments.log_format,
        lora_modules=_modules(arguments.lora_modules),
        allow_runtime_lora_updating=arguments.allow_runtime_lora_updating,
    )
    with bind(config.host, config.port) as listener:
        started = time.monotonic()
        adapter = None if arguments.adapter is None else Path(arguments.adapter)
        embedder = None if arguments.embedder is None else open_embedder(arguments.embedder)
        backend = open_engine_backend(arguments.model, config, adapter=adapter, embedder=embedder, name=arguments.name)
        url = address_of(listener)
        say(f"{backend.name}: weights {config.weights}, context {backend.max_context:,} tokens")
        run_app(
            serve_app(backend, more=adapter_routes(backend) if config.allow_runtime_lora_updating else ()),
            listener,
            on_ready=lambda: _ready(url, time.monotonic() - started),
            log_format=config.log_format,
            drain_seconds=config.drain_seconds,
        )
    return 0


def _modules(given: Sequence[str]) -> dict[str, str]:
    """`NAME=PATH` as vLLM has it, or its `{"name": ..., "path": ...}`."""
    modules: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if one.lstrip().startswith("{"):
            try:
                module = msgspec.json.decode(one, type=_Module)
            except msgspec.MsgspecError as error:
                raise ConfigError(f'--lora-modules {one} is not {{"name": ..., "path": ...}}: {error}') from error
            name, equals, path = module.name, "=", module.path
        if not (name and equals and path):
            raise ConfigError(f"--lora-modules {one} is not NAME=PATH, such as sql=adapters/sql")
        if name in modules:
            raise ConfigError(f'--lora-modules names "{name}" twice: {modules[name]} and {path}')
        modules[name] = path
    return modules


class _Module(msgspec.Struct):
    name: str
    path: str


def open_embedder(name: str, *, max_tokens: int = 128) -> MiniLm:
    """An embedding model of the catalogue or of a folder; texts are cut at `max_tokens`."""
    folder = locate(name, kind="embedder", download=True, say=say)
    return MiniLm.load(folder, name=name, max_tokens=max_tokens)


def open_engine_backend(
    model: str | Path,
    config: ServeConfig,
    *,
    adapter: Path | None = None,
    embedder: Embedder | None = None,
    name: str | None = None,
    aliases: Sequence[str] | None = None,
) -> EngineBackend:
    """An engine with its thread, as a backend; a catalogue name is fetched when it is not in the cache.

    `aliases` are names that requests may use beside the backend's own; None means the model's as it was given.
    """
    if adapter is not None and not adapter.is_dir():
        raise InputError(f"{adapter} is not an adapter folder (with adapter_config.json and adapter_model.safetensors)")
    names = {str(model), name} if name else {str(model)}
    for module, folder in config.lora_modules.items():
        if module in names:
            raise ConfigError(f'the adapter of {folder} is called "{module}", as the model is; give it another name')
    memory = config.cache_memory
    engine = Engine.load(
        locate(model, kind="decoder", download=True, say=say),
        weights=config.weights,
        adapter=adapter,
        adapters={module: Path(folder) for module, folder in config.lora_modules.items()},
        threads=config.threads,
        isa=config.kernels,
        max_context=config.max_context,
        cache_bytes=None if memory is None else parse_bytes(memory, where="serve.cache_memory"),
        kv="fp16" if config.kv_cache_dtype == "auto" else config.kv_cache_dtype,
        step_tokens=config.step_tokens,
        max_running=config.max_running,
        max_waiting=config.max_waiting,
        say=say,
    )
    return EngineBackend(
        engine,
        EngineRunner(engine),
        name=name,
        aliases=(str(model),) if aliases is None else aliases,
        embedder=embedder,
        max_waiting=config.max_waiting,
        answer_seconds=config.answer_seconds,
    )


def _ready(url: str, seconds: float) -> None:
    say(f"listening on {url} (ready in {human_seconds(seconds)}); OpenAI's clients use {url}/v1; Ctrl-C stops")
