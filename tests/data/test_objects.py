"""Sources in an object store: a real S3 server (moto), one that answers 503, and one that cuts connections."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highrise.core.errors import DataError, InputError
from highrise.data.build import build_dataset
from highrise.data.config import DataConfig
from highrise.data.shards import read_documents
from highrise.data.sources import is_remote, open_source
from tests.data.conftest import module
from tests.data.test_readers import jsonl, tar
from tests.data.test_streams import fates

obstore = pytest.importorskip("obstore", reason="obstore is not installed")


def credentials(patch: pytest.MonkeyPatch, port: int) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }.items():
        patch.setenv(name, value)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("flask_cors", reason="flask-cors is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def bucket(server: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    import boto3

    credentials(monkeypatch, server)
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server}", region_name="us-east-1")
    client.create_bucket(Bucket="crawl")
    members = {f"p-1.0/m{n}.py": module(n).encode() for n in range(30)}
    objects = {
        "raw/p-1.0.tar.gz": tar(members),
        "raw/rows.jsonl": jsonl(*({"text": module(n), "path": f"r{n}.py"} for n in range(50, 55))),
        "raw/notes.txt": b"some words\n",
        "other/q.tar": b"broken",
    }
    for key, body in objects.items():
        client.put_object(Bucket="crawl", Key=key, Body=body)
    return client


@pytest.mark.usefixtures("bucket")
def test_a_prefix_a_pattern_and_one_object(tmp_path: Path) -> None:
    assert is_remote("s3://crawl/raw/") and not is_remote("file:///x")
    names = [blob.name for blob in open_source("s3://crawl/raw/", DataConfig()).blobs]
    assert names == ["s3://crawl/raw/notes.txt", "s3://crawl/raw/p-1.0.tar.gz", "s3://crawl/raw/rows.jsonl"]
    assert [blob.name for blob in open_source("s3://crawl/*/*.tar", DataConfig()).blobs] == ["s3://crawl/other/q.tar"]
    assert len(open_source("s3://crawl/raw/notes.txt", DataConfig()).blobs) == 1
    counts = build_dataset(DataConfig(sources=("s3://crawl/raw/", "s3://crawl/other")), tmp_path / "out", workers=0)
    assert counts["documents"] == 36 and counts["dropped: damaged"] == 1
    assert fates(tmp_path / "out")["p:p-1.0/m3.py"] == ("", "")
    assert {document.own for document in read_documents(tmp_path / "out")} == {False}


@pytest.mark.usefixtures("bucket")
def test_what_is_not_there_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"s3://nothing/x cannot be listed"):
        open_source("s3://nothing/x", DataConfig())
    with pytest.raises(InputError, match=r"cannot be listed|holds no readable file"):
        open_source("s3://crawl/none/", DataConfig())


LISTING = b"""<?xml version="1.0"?>
<ListBucketResult><Name>b</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated><Contents><Key>rows.jsonl</Key><Size>%d</Size><ETag>"x"</ETag>
<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>
</ListBucketResult>"""
BODY = jsonl(*({"text": module(n), "path": f"m{n}.py"} for n in range(25)))


class Flaky(http.server.BaseHTTPRequestHandler):
    """Fails the first `failures` reads of the object, by 503 or by a cut in the middle."""

    failures = 0
    cut = False

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self.answer(200, LISTING % len(BODY))
            return
        kind = type(self)
        if kind.failures > 0:
            kind.failures -= 1
            if kind.cut:
                self.send_response(206)
                self.send_header("Content-Range", f"bytes 0-{len(BODY) - 1}/{len(BODY)}")
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY[:1000])
                self.close_connection = True
            else:
                self.answer(503, b"<Error><Code>SlowDown</Code></Error>")
            return
        begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        body = BODY[int(begin) : int(end) + 1]
        self.answer(206, body, [("Content-Range", f"bytes {begin}-{end}/{len(BODY)}")])

    def answer(self, status: int, body: bytes, headers: list[tuple[str, str]] | None = None) -> None:
        self.send_response(status)
        for name, value in [*(headers or []), ("Content-Length", str(len(body))), ("ETag", '"x"')]:
            self.send_header(name, value)
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Flaky]]:
    kind = type("Flaky_", (Flaky,), {})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    credentials(monkeypatch, running.server_address[1])
    yield kind
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("cut", [False, True])
def test_a_store_that_stumbles_loses_nothing(flaky: type[Flaky], cut: bool, tmp_path: Path) -> None:
    flaky.failures, flaky.cut = 2, cut
    counts = build_dataset(DataConfig(sources=("s3://b/rows.jsonl",)), tmp_path / "out", workers=0)
    assert counts["documents"] == counts["files"] == 25 and flaky.failures == 0


def test_a_store_that_stays_down_is_one_sentence(
    flaky: type[Flaky], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from highrise.data.adapters import obstore as adapter

    monkeypatch.setattr(adapter, "_TRIES", 2)
    monkeypatch.setattr(adapter, "_RETRIES", 1)
    flaky.failures = 10_000
    with pytest.raises(DataError, match=r"s3://b/rows.jsonl could not be read in 2 tries .* finished work is kept"):
        build_dataset(DataConfig(sources=("s3://b/rows.jsonl",)), tmp_path / "out", workers=0)
