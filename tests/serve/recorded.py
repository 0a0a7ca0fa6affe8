"""A server that answers what a real one answered, from a file, or asks the real one and writes that file.

What is asked must be what was asked when the file was written, body and all: so both sides of the exchange are held.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


@contextlib.contextmanager
def tape(file: Path, *, record_from: str | None = None) -> Iterator[str]:
    """The address of the server for a block; with `record_from` the file is written when the block ends well."""
    entries: list[dict[str, Any]] = [] if record_from else json.loads(file.read_text())
    unused = list(entries)
    lock = threading.Lock()

    def answer(method: str, path: str, body: Any) -> dict[str, Any]:
        if record_from is not None:
            real = httpx.request(method, record_from + path, json=body, timeout=300)
            kind = real.headers.get("content-type", "")
            entry = {"method": method, "path": path, "body": body, "status": real.status_code, "type": kind}
            entries.append({**entry, "text": real.text})
            return entries[-1]
        with lock:
            for entry in unused:
                if (entry["method"], entry["path"], entry["body"]) == (method, path, body):
                    if method != "GET":  # looked at more than once
                        unused.remove(entry)
                    return entry
        problem = f"{method} {path} with {json.dumps(body)} was not asked when {file.name} was recorded"
        return {"status": 501, "type": "application/json", "text": json.dumps({"error": {"message": problem}})}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            entry = answer(self.command, self.path, body)
            data = entry["text"].encode()
            self.send_response(entry["status"])
            self.send_header("content-type", entry["type"])
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
        if record_from is not None:
            file.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
