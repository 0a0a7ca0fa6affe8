"""Sources in an object store: S3, Azure Blob and Google Cloud Storage, each read from a real server, and through a
proxy that answers 503, refuses the key or cuts the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from highrise.core.errors import DataError, InputError
from highrise.data.build import build_data, build_dataset
from highrise.data.config import DataConfig
from highrise.data.shards import read_documents
from highrise.data.sources import is_remote, open_source
from tests.data.clouds import BUCKET, CLOUDS, faulty
from tests.data.conftest import module
from tests.data.test_readers import jsonl, tar
from tests.data.test_streams import fates

obstore = pytest.importorskip("obstore", reason="obstore is not installed")

OBJECTS = {
    "raw/p-1.0.tar.gz": tar({f"p-1.0/m{n}.py": module(n).encode() for n in range(30)}),
    "raw/rows.jsonl": jsonl(*({"text": module(n), "path": f"r{n}.py"} for n in range(50, 55))),
    "raw/notes.txt": b"some words\n",
    "other/q.tar": b"broken",
}


@pytest.fixture(scope="module", params=sorted(CLOUDS))
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A running server of each store that holds `OBJECTS`."""
    with CLOUDS[request.param].start(tmp_path_factory.mktemp("store")) as cloud:
        cloud.environment(cloud.port)
        cloud.fill(OBJECTS)
        yield cloud


@pytest.fixture
def cloud(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, with its key in the environment."""
    use(monkeypatch, store, store.port)
    return store


def use(patch: pytest.MonkeyPatch, cloud: Any, port: int, *, right: bool = True) -> None:
    for name, value in {**cloud.environment(port, right=right), "NO_PROXY": "127.0.0.1"}.items():
        patch.setenv(name, value)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tries, so that a store which stays down is given up soon."""
    from highrise.data.adapters import obstore as adapter

    monkeypatch.setattr(adapter, "_TRIES", 2)
    monkeypatch.setattr(adapter, "_RETRIES", 1)


def test_a_prefix_a_pattern_and_one_object(cloud: Any, tmp_path: Path) -> None:
    root = f"{cloud.scheme}://{BUCKET}"
    assert is_remote(f"{root}/raw/") and not is_remote("file:///x")
    names = [blob.name for blob in open_source(f"{root}/raw/", DataConfig()).blobs]
    assert names == [f"{root}/raw/notes.txt", f"{root}/raw/p-1.0.tar.gz", f"{root}/raw/rows.jsonl"]
    assert [blob.name for blob in open_source(f"{root}/*/*.tar", DataConfig()).blobs] == [f"{root}/other/q.tar"]
    assert len(open_source(f"{root}/raw/notes.txt", DataConfig()).blobs) == 1
    counts = build_dataset(DataConfig(sources=(f"{root}/raw/", f"{root}/other")), tmp_path / "out", workers=0)
    assert counts["documents"] == 36 and counts["dropped: damaged"] == 1
    assert fates(tmp_path / "out")["p:p-1.0/m3.py"] == ("", "")
    assert {document.own for document in read_documents(tmp_path / "out")} == {False}


def test_what_is_not_there_is_one_sentence(cloud: Any) -> None:
    with pytest.raises(InputError, match=rf"{cloud.scheme}://nothing/x cannot be listed"):
        open_source(f"{cloud.scheme}://nothing/x", DataConfig())
    with pytest.raises(InputError, match=r"cannot be listed|holds no readable file"):
        open_source(f"{cloud.scheme}://{BUCKET}/none/", DataConfig())


@pytest.mark.usefixtures("hasty")
def test_a_wrong_key_is_one_sentence(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto and Azurite refuse it themselves; fake-gcs-server takes any, so there the proxy refuses."""
    address = f"{store.scheme}://{BUCKET}/raw/"
    with faulty(store.port, "401") as (port, _):
        use(monkeypatch, store, port if store.scheme == "gs" else store.port, right=False)
        with pytest.raises(InputError, match=rf"{address} cannot be listed: .*check address, key and connection"):
            open_source(address, DataConfig())
    store.environment(store.port)


@pytest.mark.parametrize("kind", ["503", "cut"])
def test_a_store_that_stumbles_loses_nothing(
    cloud: Any, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with faulty(cloud.port, kind, failures=2) as (port, spoils):
        use(monkeypatch, cloud, port)
        config = DataConfig(sources=(f"{cloud.scheme}://{BUCKET}/raw/",))
        counts = build_dataset(config, tmp_path / "out", workers=0)
    assert counts["documents"] == counts["files"] == 36 and spoils.failures == 0


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", ["503", "cut"])
def test_a_store_that_stays_down_is_one_sentence_and_is_resumed(
    cloud: Any, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = DataConfig(sources=(f"{cloud.scheme}://{BUCKET}/raw/",))
    with faulty(cloud.port, kind) as (port, spoils):
        use(monkeypatch, cloud, port)
        build_data(config, tmp_path / "undisturbed", workers=0)
        spoils.good, spoils.failures = 3, 10_000  # the archive (read twice) is whole, the rows behind it are not
        with pytest.raises(DataError, match=r"rows.jsonl could not be read in 2 tries .* finished work is kept"):
            build_data(config, tmp_path / "out", workers=0)
        assert not (tmp_path / "out" / "shards").exists()
        spoils.failures = 0
        build_data(config, tmp_path / "out", workers=0)
    shards = [(tmp_path / name / "shards" / "00000.parquet").read_bytes() for name in ("out", "undisturbed")]
    assert shards[0] == shards[1]
