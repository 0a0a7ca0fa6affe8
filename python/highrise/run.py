"""Serve an assistant: binds the port, builds what is not built, opens the engine or the upstream, runs the application.

The port is bound first, so that a taken one is found before any work. Knows how the parts fit together.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

from highrise.agent.app import build_app
from highrise.assistant import Assistant
from highrise.build import Built, build_assistant
from highrise.check import check
from highrise.core.errors import HighriseError
from highrise.core.progress import human_seconds, say
from highrise.encode.index import SearchIndex
from highrise.encode.minilm import MiniLm
from highrise.serve.backend import Backend
from highrise.serve.loader import check_kernels
from highrise.serve.server import address_of, bind, run_app

__all__ = ["open_parts", "serve_assistant"]


def serve_assistant(assistant: Assistant, *, check_only: bool, retune: bool = False) -> int:
    """Serve until SIGINT or SIGTERM and return 0; with `check_only` ask three questions, return 0 or 1."""
    failures: list[str] = []
    check_kernels(assistant.serve.kernels)  # before minutes of building, not after
    with bind(assistant.serve.host, assistant.serve.port) as listener:
        built = build_assistant(assistant, retune=retune)
        started = time.monotonic()
        backend, index, infill = open_parts(assistant, built)
        app = build_app(assistant.agent, backend, index=index, root=Path.cwd(), name=assistant.name)
        url = address_of(listener)

        def ask() -> None:
            try:
                check(url, model=backend.name, infill=infill, search=index is not None)
            except (HighriseError, OSError) as error:
                failures.append(str(error))
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        def ready() -> None:
            took = human_seconds(time.monotonic() - started)
            say(f"{'serving':<10} {took:>8}  {backend.name} on {url} (Ctrl-C stops)")
            if check_only:
                threading.Thread(target=ask, name="check", daemon=True).start()

        with contextlib.suppress(KeyboardInterrupt):
            run_app(
                app,
                listener,
                on_ready=ready,
                log_format=assistant.serve.log_format,
                drain_seconds=assistant.serve.drain_seconds,
                traces_endpoint=assistant.serve.otlp_traces_endpoint,
            )
    for failure in failures:
        say(f"highrise: {failure}")
    return 1 if failures else 0


def open_parts(assistant: Assistant, built: Built) -> tuple[Backend, SearchIndex | None, bool]:
    """The engine or the upstream, the index, and whether a middle is filled in; both search with one embedder."""
    serve = assistant.serve
    if serve.upstream is not None:
        from highrise.serve.upstream import UpstreamBackend

        return UpstreamBackend(serve.upstream), _open_index(built, None), assistant.agent.completion
    from highrise.serve.cli import open_backend, open_embedder

    assert built.weights is not None
    embedder = None if built.embedder is None else open_embedder(built.embedder, max_tokens=assistant.index.max_tokens)
    backend = open_backend(
        built.weights,
        serve,
        adapter=built.adapter,
        embedder=embedder,
        name=assistant.name,
        aliases=(assistant.train.base,) if assistant.train.base else (),
    )
    infill = assistant.agent.completion and backend.engine.prompts.supports_infill
    return backend, _open_index(built, embedder), infill


def _open_index(built: Built, embedder: MiniLm | None) -> SearchIndex | None:
    return None if built.index is None else SearchIndex.open(built.index, embedder=embedder)
