"""The duplicate search of a build: the same in files as in memory, whatever the sources, and bounded."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from highrise.data.build import build_data
from highrise.data.config import DataConfig
from highrise.data.shards import ShardTexts, read_documents
from tests.data.conftest import MakeRepository, module


@pytest.mark.parametrize(("near", "workers"), [(0.8, 0), (0.0, 0), (0.8, 2)])
def test_in_files_as_in_memory(make_repository: MakeRepository, tmp_path: Path, near: float, workers: int) -> None:
    files = {f"m{n}.py": module(n) for n in range(30)}
    files |= {f"near{n}.py": module(n) + "# copied\n" for n in range(10)} | {"equal.py": module(3), "bad.py": "def f(:"}
    make_repository("a", dict(files))
    make_repository("b", {f"x{n}.py": module(n) for n in range(20, 40)})
    sources = (str(tmp_path / "a"), str(tmp_path / "b"))
    config = DataConfig(sources=sources, near_duplicate=near)
    small = DataConfig(sources=sources, near_duplicate=near, search_memory=1)
    build_data(config, tmp_path / "memory", workers=workers)
    build_data(small, tmp_path / "files", workers=workers)
    one, other = (pq.read_table(tmp_path / name / "files.parquet") for name in ("memory", "files"))
    assert one.equals(other)
    shards = [sorted((tmp_path / name / "shards").iterdir()) for name in ("memory", "files")]
    assert [path.read_bytes() for path in shards[0]] == [path.read_bytes() for path in shards[1]]
    assert not list((tmp_path / "files").rglob("search"))


def test_texts_of_shards_by_digest(make_repository: MakeRepository, tmp_path: Path) -> None:
    make_repository("a", {f"m{n}.py": module(n) for n in range(30)})
    build_data(DataConfig(sources=(str(tmp_path / "a"),), shard_bytes=10_000), tmp_path / "data", workers=0)
    texts = ShardTexts(tmp_path / "data")
    documents = list(read_documents(tmp_path / "data"))
    assert len(list((tmp_path / "data" / "shards").iterdir())) > 2
    for document in [*documents, *reversed(documents)]:
        assert texts.find(document.sha256) == document.text
    assert texts.find("00" * 32) is None and ShardTexts().find("00" * 32) is None
