"""A real server on a free port, in a thread or as the command starts it, for those that speak HTTP to it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import uvicorn
from litestar import Litestar

from highrise.serve.server import address_of, bind, server_config

HTTP = httpx.Client(timeout=60)
"""One client for all tests: making one loads certificates, which takes longer than most of them."""


@contextlib.contextmanager
def listening(app: Litestar, **options: Any) -> Iterator[str]:
    """The base URL of `app` while the block runs; `options` are those of `server_config`."""
    listener = bind("127.0.0.1", 0)
    config = server_config(app, **options)
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    try:
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


@contextlib.contextmanager
def served(model: str, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The base URL and the process of `highrise serve`, as its users start it; it ends by SIGINT."""
    command = [sys.executable, "-m", "highrise.cli", "serve", model, "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = next((line for line in server.stderr if "listening on" in line), None)
            if line is None:
                raise RuntimeError(f"the server left with {server.wait()} and never listened")
            yield line.split("listening on ")[1].split()[0], server
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
