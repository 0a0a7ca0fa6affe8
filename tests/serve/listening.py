"""A real server on a free port in a thread, for tests that speak HTTP to it."""

from __future__ import annotations

import contextlib
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
