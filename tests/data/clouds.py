"""Real servers of three object stores, each started for a module of tests, and a proxy that spoils what they answer.

S3 is moto's server, Azure Blob is Azurite, Google Cloud Storage is fake-gcs-server. Where one is absent its tests are
skipped with the way to install it. Knows nothing of what is read.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BUCKET = "crawl"
TOOLS = Path.home() / ".cache" / "highrise" / "stores"
_ACCOUNT, _KEY = "devstoreaccount1", base64.b64encode(b"a key of the tests, not of anyone").decode()


def tool(name: str, *, install: str) -> str:
    """Path of a server; skips with what installs it."""
    places = [TOOLS / "node_modules" / ".bin" / name, TOOLS / "bin" / name]
    found = next((str(place) for place in places if place.exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is neither in {TOOLS} nor on PATH; install it with `{install}`")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """The process `command` while it listens on `port`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None:
                    assert process.stderr is not None
                    raise AssertionError(f"{command[0]} ended: {process.stderr.read().decode()[-500:]}")
                time.sleep(0.1)
            yield
        finally:
            process.kill()


class S3:
    """moto's server. It takes any key until `lock` is called."""

    scheme = "s3"

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    @contextlib.contextmanager
    def start(cls, _: Path) -> Iterator[S3]:
        moto = pytest.importorskip("moto.server", reason="moto is not installed")
        pytest.importorskip("flask_cors", reason="flask-cors is not installed")
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        try:
            yield cls(server.get_host_and_port()[1])
        finally:
            server.stop()

    def environment(self, port: int, *, right: bool = True) -> dict[str, str]:
        """What AWS's own tools take; `port` is the server's or a proxy's."""
        self._ask("POST", "/moto-api/reset-auth", b"100000000" if right else b"0")
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def fill(self, objects: dict[str, bytes]) -> None:
        self._ask("PUT", f"/{BUCKET}", b"")
        for key, body in objects.items():
            self._ask("PUT", f"/{BUCKET}/{key}", body)

    def _ask(self, method: str, path: str, body: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=60):
            pass


class Azure:
    """Azurite, which checks the signature of every request."""

    scheme = "az"

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[Azure]:
        server = tool("azurite-blob", install=f"npm install --prefix {TOOLS} azurite@3.35.0")
        port = free_port()
        options = ["--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        script = folder / "azurite.sh"
        script.write_text(f'AZURITE_ACCOUNTS="{_ACCOUNT}:{_KEY}" exec "{server}" "$@"\n')
        with running(["sh", str(script), *options], port):
            yield cls(port)

    def environment(self, port: int, *, right: bool = True) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY if right else base64.b64encode(b"another key").decode(),
        }

    def fill(self, objects: dict[str, bytes]) -> None:
        with contextlib.suppress(urllib.error.HTTPError):  # a container that is there already
            self._ask("", b"", "restype:container", {})
        for key, body in objects.items():
            self._ask(f"/{key}", body, "", {"x-ms-blob-type": "BlockBlob"})

    def _ask(self, path: str, body: bytes, query: str, headers: dict[str, str]) -> None:
        """A PUT signed with the shared key."""
        date = email.utils.formatdate(usegmt=True)
        headers = {**headers, "x-ms-date": date, "x-ms-version": "2021-12-02"}
        place = f"/{_ACCOUNT}/{BUCKET}{path}"
        signed = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        length = str(len(body)) if body else ""
        text = f"PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{signed}/{_ACCOUNT}{place}"
        text += f"\n{query}" if query else ""
        digest = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
        headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{digest}", "Content-Type": "application/octet-stream"}
        url = f"http://127.0.0.1:{self.port}{place}" + (f"?{query.replace(':', '=')}" if query else "")
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method="PUT"), timeout=60):
            pass


class Google:
    """fake-gcs-server, which takes any key or none."""

    scheme = "gs"

    def __init__(self, port: int) -> None:
        self.port = port

    @classmethod
    @contextlib.contextmanager
    def start(cls, folder: Path) -> Iterator[Google]:
        install = f"GOBIN={TOOLS}/bin go install github.com/fsouza/fake-gcs-server@v1.56.1"
        server, port = tool("fake-gcs-server", install=install), free_port()
        place = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
        with running([server, "-scheme", "http", "-backend", "memory", "-data", str(folder), *place], port):
            yield cls(port)

    def environment(self, port: int, *, right: bool = True) -> dict[str, str]:
        del right
        return {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}

    def fill(self, objects: dict[str, bytes]) -> None:
        with contextlib.suppress(urllib.error.HTTPError):  # a bucket that is there already
            self._ask("/storage/v1/b?project=p", json.dumps({"name": BUCKET}).encode())
        for key, body in objects.items():
            name = key.replace("/", "%2F")
            self._ask(f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}", body)

    def _ask(self, path: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60):
            pass


CLOUDS: dict[str, Any] = {cloud.scheme: cloud for cloud in (S3, Azure, Google)}


class Faulty(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the server at `upstream` and spoils reads of an object: the next `failures` of them, after
    `good` that go well.
    """

    upstream = 0
    good = 0
    failures = 0
    kind = ""
    """"503" and "401" answer that, "cut" sends half of the body and closes."""

    def do_GET(self) -> None:
        kind = type(self)
        spoiled = ""
        if "Range" in self.headers:
            if kind.good > 0:
                kind.good -= 1
            elif kind.failures > 0:
                kind.failures -= 1
                spoiled = kind.kind
        elif kind.kind == "401":
            spoiled = kind.kind
        if spoiled in ("503", "401"):
            self._answer(int(spoiled), b"<Error><Code>Spoiled</Code></Error>", [])
            return
        connection = http.client.HTTPConnection("127.0.0.1", kind.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        connection.request(self.command, self.path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        kept = [
            pair
            for pair in answer.getheaders()
            if pair[0].lower() not in ("content-length", "transfer-encoding", "connection", "date")
        ]
        self._answer(answer.status, body, kept, cut=spoiled == "cut", length=answer.getheader("Content-Length"))
        connection.close()

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(
        self, status: int, body: bytes, headers: list[tuple[str, str]], *, cut: bool = False, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", length or str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def faulty(upstream: int, kind: str, *, good: int = 0, failures: int = 0) -> Iterator[tuple[int, type[Faulty]]]:
    """A proxy before the server at port `upstream`; its port, and what it is to do."""
    handler = type("Faulty_", (Faulty,), {"upstream": upstream, "kind": kind, "good": good, "failures": failures})
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy.server_address[1], handler
    finally:
        proxy.shutdown()
        proxy.server_close()
