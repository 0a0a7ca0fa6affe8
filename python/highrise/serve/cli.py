"""Floor 6, command line: `highrise serve MODEL`. Opens the engine, puts the routes over it, says where it listens."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from highrise.core.catalogue import locate
from highrise.core.config import parse_size
from highrise.core.errors import ConfigError, InputError
from highrise.core.progress import human_seconds, say
from highrise.core.weights import open_weights
from highrise.encode.minilm import MiniLm
from highrise.encode.prompt import PromptFormat
from highrise.encode.tokenizer import Tokenizer
from highrise.serve.backend import Embedder
from highrise.serve.config import ServeConfig
from highrise.serve.engine import Engine
from highrise.serve.engine_backend import EngineBackend
from highrise.serve.engine_process import EngineProcess
from highrise.serve.engine_view import EngineView, Runner
from highrise.serve.http import serve_app
from highrise.serve.http_adapters import adapter_routes
from highrise.serve.metrics import MetricsPage
from highrise.serve.runner import EngineRunner
from highrise.serve.server import address_of, bind, run_app
from highrise.serve.several import SeveralBackends

__all__ = ["open_backend", "open_embedder", "open_engine_backend", "serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Load the model, or models, listen, serve until SIGINT or SIGTERM."""
    config = ServeConfig(
        weights=arguments.weights,
        kernels=arguments.kernels,
        engine=arguments.engine,
        host=arguments.host,
        port=arguments.port,
        threads=arguments.threads,
        max_context=arguments.max_context,
        kv_cache_dtype=arguments.kv_cache_dtype,
        cache_memory=arguments.cache_memory,
        step_tokens=arguments.step_tokens,
        max_running=arguments.max_running,
        max_waiting=arguments.max_waiting,
        answer_timeout=arguments.answer_timeout,
        step_timeout=arguments.step_timeout,
        drain=arguments.drain,
        log_format=arguments.log_format,
        draft_model=arguments.draft_model,
        otlp_traces_endpoint=arguments.otlp_traces_endpoint,
        models=_pairs("--model", arguments.models, example="fast=smollm2-135m"),
        lora_modules=_pairs("--lora-modules", arguments.lora_modules, example="sql=adapters/sql"),
        allow_runtime_lora_updating=arguments.allow_runtime_lora_updating,
    )
    with bind(config.host, config.port) as listener:
        started = time.monotonic()
        adapter = None if arguments.adapter is None else Path(arguments.adapter)
        embedder = None if arguments.embedder is None else open_embedder(arguments.embedder)
        backend = open_backend(arguments.model, config, adapter=adapter, embedder=embedder, name=arguments.name)
        url = address_of(listener)
        run_app(
            serve_app(backend, more=adapter_routes(backend) if config.allow_runtime_lora_updating else ()),
            listener,
            on_ready=lambda: _ready(url, time.monotonic() - started),
            log_format=config.log_format,
            drain_seconds=config.drain_seconds,
            traces_endpoint=config.otlp_traces_endpoint,
        )
    return 0


def _pairs(flag: str, given: Sequence[str], *, example: str) -> dict[str, str]:
    """`NAME=PATH` as vLLM has it, or its `{"name": ..., "path": ...}`."""
    pairs: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if one.lstrip().startswith("{"):
            try:
                pair = msgspec.json.decode(one, type=_Pair)
            except msgspec.MsgspecError as error:
                raise ConfigError(f'{flag} {one} is not {{"name": ..., "path": ...}}: {error}') from error
            name, equals, path = pair.name, "=", pair.path
        if not (name and equals and path):
            raise ConfigError(f"{flag} {one} is not NAME=PATH, such as {example}")
        if name in pairs:
            raise ConfigError(f'{flag} names "{name}" twice: {pairs[name]} and {path}')
        pairs[name] = path
    return pairs


class _Pair(msgspec.Struct):
    name: str
    path: str


def open_embedder(name: str, *, max_tokens: int = 128) -> MiniLm:
    """An embedding model of the catalogue or of a folder; texts are cut at `max_tokens`."""
    folder = locate(name, kind="embedder", download=True, say=say)
    return MiniLm.load(folder, name=name, max_tokens=max_tokens)


def open_backend(
    model: str | Path,
    config: ServeConfig,
    *,
    adapter: Path | None = None,
    embedder: Embedder | None = None,
    name: str | None = None,
    aliases: Sequence[str] | None = None,
) -> EngineBackend | SeveralBackends:
    """The engine of `model`, and one more for each of `config.models`; adapters and embedder belong to the first.

    `aliases` are names that requests may use for the first model beside its own; None means `model` as it was given.
    """
    if not config.models:
        return open_engine_backend(model, config, adapter=adapter, embedder=embedder, name=name, aliases=aliases)
    taken = {str(model), *([name] if name else [])}
    for other in config.models:
        if other in taken or other in config.lora_modules:
            raise ConfigError(f'two models or adapters are called "{other}"; give one of them another name')
    sharers, page = 1 + len(config.models), MetricsPage()
    share = _share(config, sharers)
    opened = [
        open_engine_backend(
            model,
            share,
            adapter=adapter,
            embedder=embedder,
            name=name,
            aliases=aliases,
            sharers=sharers,
            page=page,
        )
    ]
    try:
        for other, path in config.models.items():
            if opened[0].serves(other):
                raise ConfigError(f'"{other}" is a name of the first model as well; give this one another')
            alone = msgspec.structs.replace(share, lora_modules={}, draft_model=None)
            opened.append(
                open_engine_backend(path, alone, name=other, aliases=(), sharers=sharers, page=page, is_first=False)
            )
    except BaseException:
        for one in opened:
            one.runner.close()
        raise
    return SeveralBackends(opened)


def _share(config: ServeConfig, sharers: int) -> ServeConfig:
    """What one of several engines gets of the threads and the memory that the configuration names."""
    memory = config.cache_memory
    return msgspec.structs.replace(
        config,
        models={},
        threads=None if config.threads is None else max(config.threads // sharers, 1),
        cache_memory=memory and f"{parse_size(memory, where='serve.cache_memory') // sharers} B",
    )


def open_engine_backend(
    model: str | Path,
    config: ServeConfig,
    *,
    adapter: Path | None = None,
    embedder: Embedder | None = None,
    name: str | None = None,
    aliases: Sequence[str] | None = None,
    sharers: int = 1,
    page: MetricsPage | None = None,
    is_first: bool = True,
) -> EngineBackend:
    """One engine with its process or thread, as a backend; a catalogue name is fetched when it is not in the cache.

    `aliases` are names that requests may use beside the backend's own; None means the model's as it was given. What is
    derived from the machine is one share of `sharers`. Requests that name no model are for the one that `is_first`.
    """
    if adapter is not None and not adapter.is_dir():
        raise InputError(f"{adapter} is not an adapter folder (with adapter_config.json and adapter_model.safetensors)")
    names = {str(model), name} if name else {str(model)}
    for module, folder in config.lora_modules.items():
        if module in names:
            raise ConfigError(f'the adapter of {folder} is called "{module}", as the model is; give it another name')
    path = locate(model, kind="decoder", download=True, say=say)
    open_it = _in_process if config.engine == "process" else _here
    engine, runner = open_it(path, config, adapter, sharers)
    return EngineBackend(
        engine,
        runner,
        name=name,
        aliases=(str(model),) if aliases is None else aliases,
        embedder=embedder,
        max_waiting=config.max_waiting,
        answer_seconds=config.answer_seconds,
        page=page,
        is_first=is_first,
    )


def _options(config: ServeConfig, sharers: int) -> dict[str, Any]:
    """What `Engine.load` takes from the configuration, but for the adapters."""
    memory = config.cache_memory
    return {
        "weights": config.weights,
        "threads": config.threads,
        "isa": config.kernels,
        "max_context": config.max_context,
        "cache_bytes": None if memory is None else parse_size(memory, where="serve.cache_memory"),
        "kv": "fp16" if config.kv_cache_dtype == "auto" else config.kv_cache_dtype,
        "step_tokens": config.step_tokens,
        "max_running": config.max_running,
        "max_waiting": config.max_waiting,
        "sharers": sharers,
    }


def _draft(config: ServeConfig) -> Path | None:
    return None if config.draft_model is None else locate(config.draft_model, kind="decoder", download=True, say=say)


def _here(path: Path, config: ServeConfig, adapter: Path | None, sharers: int) -> tuple[EngineView, Runner]:
    """The engine on a thread of this process."""
    draft = _draft(config)
    adapters = {name: Path(folder) for name, folder in config.lora_modules.items()}
    engine = Engine.load(path, adapter=adapter, adapters=adapters, draft=draft, say=say, **_options(config, sharers))
    return engine, EngineRunner(engine)


def _in_process(path: Path, config: ServeConfig, adapter: Path | None, sharers: int) -> tuple[EngineView, Runner]:
    """The engine in a process of its own; the vocabulary is read here while the weights are read there.

    Files that are no weights are refused before a process is started. While `file` is held its header is read once.
    """
    file = open_weights(path)
    draft = _draft(config)
    folders = {
        "path": str(path.absolute()),
        "draft": None if draft is None else str(draft.absolute()),
        "adapter": None if adapter is None else str(adapter.absolute()),
        "adapters": {name: str(Path(folder).absolute()) for name, folder in config.lora_modules.items()},
    }
    process = EngineProcess({**folders, **_options(config, sharers)}, step_timeout=config.step_seconds)
    try:
        tokenizer = Tokenizer.for_weights(file.path)
        return process.view(tokenizer, PromptFormat.for_weights(file.path, tokenizer)), process
    except BaseException:
        process.close()
        raise


def _ready(url: str, seconds: float) -> None:
    say(f"listening on {url} (ready in {human_seconds(seconds)}); OpenAI's clients use {url}/v1; Ctrl-C stops")
