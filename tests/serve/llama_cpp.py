"""Finds llama.cpp's tools and runs its server for a block: the real peer of floor 6, for tests and `bench/`.

A test that needs a tool skips with the reason when it is not there.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "llama.cpp" / "build" / "bin"


def tool(name: str) -> str:
    """Path of one of llama.cpp's tools: in `.cache/llama.cpp` of this checkout, or on PATH."""
    found = CACHE / name if (CACHE / name).is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is neither in {CACHE} nor on PATH; build it with scripts/build_llama.sh")
    return str(found)


class LlamaServer:
    """The parts of llama-server's protocol that the tests use."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path: str, body: object, *, seconds: float = 120) -> dict:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return json.load(answer)

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        return self.post("/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]

    def greedy(self, prompt_ids: list[int], count: int, *, top: int = 3) -> dict:
        """`tokens`, and `completion_probabilities`, each with `top_logprobs` (`id`, `logprob`), best first.

        Tokens that end inside a character have no probabilities of their own, so the two lists may differ in length.
        """
        return self.post(
            "/completion",
            {"prompt": prompt_ids, "n_predict": count, "temperature": 0, "n_probs": top, "cache_prompt": False,
             "return_tokens": True, "post_sampling_probs": False},
        )  # fmt: skip


@contextlib.contextmanager
def llama_server(
    model: Path,
    *,
    context: int = 1024,
    slots: int = 1,
    threads: int = 2,
    arguments: Sequence[str] = (),
    program: str | None = None,
) -> Iterator[LlamaServer]:
    """The server for a block; `slots` requests share `context`. `program` is its path if `tool` would not find it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program or tool("llama-server"), "-m", str(model), "-c", str(context), "-np", str(slots)]
    command += ["-t", str(threads)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-webui", "-ngl", "0", "--no-warmup", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = LlamaServer(f"http://127.0.0.1:{port}")
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)} left with {process.returncode}")
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{server.url}/health", timeout=2).close()
                break
            time.sleep(0.2)
        else:
            raise RuntimeError("llama-server did not become ready in two minutes")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)
