"""The index finds what it should by words and by meaning, keeps its budget, and survives being killed."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from highrise.core.document import Document
from highrise.core.errors import ConfigError, HighriseError, InputError
from highrise.encode.index import IndexConfig, SearchIndex
from highrise.encode.index_build import build_from_documents, build_index
from highrise.encode.search_cli import find_index, run_index, run_search
from tests.encode.minilm_weights import minilm_folder
from tests.encode.test_chunk import document

TOPICS = {
    "file": "files read write path disk open",
    "network": "socket server port request http",
    "number": "sum product square root mean add",
}


class TopicEmbedder:
    """An embedder that knows three topics: which of their words a text holds."""

    name = "topics"
    dimension = 4

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.texts += texts
        rows = [
            [sum(word in text.lower() for word in words.split()) for words in TOPICS.values()] + [0.1] for text in texts
        ]
        values = np.array(rows, np.float32).reshape(len(texts), 4)
        return values / np.linalg.norm(values, axis=1, keepdims=True)


def sources() -> list[Document]:
    def function(name: str, body: str) -> str:
        return f"def {name}(x):\n" + "".join(f"    x = {body}({i})\n" for i in range(6)) + "    return x\n"

    return [
        document(function("load_table", "open_path_on_disk"), path="own/load.py"),
        document(function("start_server", "socket_request_port"), path="own/net.py"),
        document(function("average", "mean_sum_square"), path="ref/math.py", own=False),
        document("# Reading\n\nHow to read files from disk.\n", path="docs/read.md", language="markdown"),
        document(
            "fn serve_http() {\n    socket();\n    port();\n    request();\n    a();\n    b();\n}\n",
            path="own/net.rs",
            language="rust",
        ),
    ]


def build(
    out: Path, documents: list[Document] | None = None, **options: object
) -> tuple[dict[str, object], TopicEmbedder]:
    embedder = TopicEmbedder()
    previous = options.pop("previous", None)
    counts = build_from_documents(
        IndexConfig(**{"threads": 1, **options}),  # type: ignore[arg-type]
        sources() if documents is None else documents,
        out,
        embedder=embedder,
        previous=previous,  # type: ignore[arg-type]
    )
    return dict(counts), embedder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index")
    counts, _ = build(out)
    assert counts["documents"] == 5 and counts["chunks"] == 5 and counts["chunks_own"] == 4
    assert counts["embedded"] == 5 and counts["lexical_only"] == 0 and counts["vector_index"] == "flat"
    return out


def paths(index: SearchIndex, query: str, **options: object) -> list[str]:
    return [hit.path for hit in index.search(query, **options)]  # type: ignore[arg-type]


def test_words_and_meaning_each_find_their_own(folder: Path) -> None:
    index = SearchIndex.open(folder, embedder=TopicEmbedder())
    assert len(index) == 5 and index.languages == ["markdown", "python", "rust"]
    assert paths(index, "loadTable", mode="lexical") == ["own/load.py"]
    assert paths(index, "product root", mode="lexical") == []
    assert paths(index, "product root", mode="vector")[0] == "ref/math.py"
    assert paths(index, "product root")[0] == "ref/math.py"


def test_a_hit_tells_where_it_stands(folder: Path) -> None:
    hit = SearchIndex.open(folder, embedder=TopicEmbedder()).search("average", limit=1)[0]
    assert (hit.path, hit.start_line, hit.end_line, hit.symbol, hit.language, hit.own) == (
        "ref/math.py", 1, 8, "average", "python", False,
    )  # fmt: skip
    assert hit.text.startswith("def average(x):") and hit.score > 0


def test_what_both_find_stands_first(folder: Path) -> None:
    hits = SearchIndex.open(folder, embedder=TopicEmbedder()).search("server port")
    assert hits[0].path == "own/net.py"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("mode", ["fused", "lexical", "vector"])
def test_filters_hold_in_every_mode(folder: Path, mode: str) -> None:
    index = SearchIndex.open(folder, embedder=TopicEmbedder())
    assert set(paths(index, "socket request", languages=["rust"], mode=mode)) == {"own/net.rs"}
    assert "ref/math.py" not in paths(index, "mean sum", own=True, mode=mode)
    assert paths(index, "socket request", languages=["cobol"], mode=mode) == []
    assert len(paths(index, "x socket open", limit=2, mode=mode)) == 2


def test_a_graph_finds_what_a_scan_finds(tmp_path: Path) -> None:
    counts, _ = build(tmp_path, flat_vectors=0)
    assert counts["vector_index"] == "hnsw-sq8"
    index = SearchIndex.open(tmp_path, embedder=TopicEmbedder())
    assert paths(index, "product root", mode="vector")[0] == "ref/math.py"
    assert set(paths(index, "socket request", languages=["rust"], mode="vector")) == {"own/net.rs"}


def test_many_threads_may_search(folder: Path) -> None:
    index = SearchIndex.open(folder, embedder=TopicEmbedder())
    queries = ["socket", "read files", "mean", "average"] * 10
    alone = [index.search(query) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(index.search, queries)) == alone


def test_without_budget_words_alone_decide(tmp_path: Path) -> None:
    counts, embedder = build(tmp_path, budget="0 s")
    assert counts["lexical_only"] == 5 and counts["lexical_only_own"] == 4 and embedder.texts == []
    assert counts["vector_index"] == "none"
    index = SearchIndex.open(tmp_path)
    assert paths(index, "average") == ["ref/math.py"]
    with pytest.raises(InputError, match="no vectors"):
        index.search("average", mode="vector")


def test_without_weights_words_alone_decide_and_the_note_says_so(tmp_path: Path) -> None:
    build(tmp_path, embedder="/nowhere/model")
    index = SearchIndex.open(tmp_path)
    assert paths(index, "average") == ["ref/math.py"]
    assert index.note.startswith("searched by words alone")


def test_own_sources_are_embedded_first(tmp_path: Path) -> None:
    _, embedder = build(tmp_path)
    passages = embedder.texts[1:]  # the first text is the probe
    assert passages[-1].startswith("ref/math.py average\n")


def test_the_budget_ends_the_work_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highrise.encode.vectors._BLOCK", 1)
    clock = iter(range(1000))
    monkeypatch.setattr("highrise.encode.vectors.time.monotonic", lambda: float(next(clock)))
    counts, embedder = build(tmp_path, budget="3 s")  # every block takes one second of this clock
    assert counts["embedded"] == 3 and counts["embedded_own"] == 3 and counts["lexical_only"] == 2
    assert counts["embedding_seconds"] == 3 and len(embedder.texts) == 4
    assert not (tmp_path / "blocks").exists()
    found = paths(SearchIndex.open(tmp_path, embedder=TopicEmbedder()), "average")
    assert found[0] == "ref/math.py"  # not embedded, still found


def test_a_chunk_without_a_vector_is_not_held_back(tmp_path: Path) -> None:
    sure = document("def parse_duration(text):\n" + "    text = strip(text)\n" * 6, path="ref/sure.py", own=False)
    near = [document(f"def open_{i}(path):\n" + "    read(path)\n" * 6, path=f"own/{i}.py") for i in range(30)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("highrise.encode.vectors._BLOCK", 1)
        clock = iter(range(1000))
        patch.setattr("highrise.encode.vectors.time.monotonic", lambda: float(next(clock)))
        counts, _ = build(tmp_path, [*near, sure], budget="30 s")
    assert counts["embedded"] == 30 and counts["lexical_only"] == 1
    index = SearchIndex.open(tmp_path, embedder=TopicEmbedder())
    assert paths(index, "parse duration read")[0] == "ref/sure.py"


def test_vectors_of_unchanged_text_are_taken_over(tmp_path: Path) -> None:
    build(tmp_path / "old")
    changed = [*sources()[:-1], document("def fresh():\n    return open('disk')\n", path="own/new.py")]
    counts, embedder = build(tmp_path / "new", changed, previous=tmp_path / "old")
    assert counts["reused_vectors"] == 4 and counts["embedded"] == 5
    assert [text.split("\n")[0] for text in embedder.texts[1:]] == ["own/new.py fresh"]
    alone, _ = build(tmp_path / "alone", changed)
    assert alone["embedded"] == 5
    for mode in ("fused", "vector"):
        found = [
            SearchIndex.open(tmp_path / name, embedder=TopicEmbedder()).search("open disk", mode=mode)
            for name in ("new", "alone")
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("damaged", ["index.json", "vectors/keys.npy", "vectors/vectors.npy"])
def test_a_damaged_older_index_is_left_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: str) -> None:
    build(tmp_path / "old")
    (tmp_path / "old" / damaged).write_bytes(b"{")
    counts, _ = build(tmp_path / "new", previous=tmp_path / "old")
    assert counts["reused_vectors"] == 0 and counts["embedded"] == 5
    assert "not taken over" in capsys.readouterr().err


def test_equal_chunks_are_embedded_once(tmp_path: Path) -> None:
    counts, embedder = build(tmp_path, [sources()[0], sources()[0]])
    assert counts["embedded"] == 2 and len(embedder.texts) == 2


def test_a_killed_build_goes_on_where_it_stopped(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        import highrise.encode.vectors as vectors
        from tests.encode.test_index import TopicEmbedder, sources
        from highrise.encode.index import IndexConfig
        from highrise.encode.index_build import build_from_documents
        vectors._BLOCK = 1
        class Slow(TopicEmbedder):
            def embed(self, texts):
                if len(self.texts) == 3:
                    print("two done", flush=True)
                    time.sleep(60)
                return super().embed(texts)
        build_from_documents(IndexConfig(threads=1), sources(), Path(sys.argv[1]), embedder=Slow())
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    assert child.stdout is not None and child.stdout.readline() == b"two done\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "index.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("highrise.encode.vectors._BLOCK", 1)
        counts, embedder = build(tmp_path)
    assert counts["embedded"] == 5 and counts["reused_vectors"] == 0
    assert len(embedder.texts) == 1 + 3
    assert paths(SearchIndex.open(tmp_path, embedder=TopicEmbedder()), "average")[0] == "ref/math.py"


def test_an_index_of_nothing(tmp_path: Path) -> None:
    counts, _ = build(tmp_path, [])
    assert counts["chunks"] == 0
    assert SearchIndex.open(tmp_path).search("x") == []


def test_damage_is_one_sentence(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="not a search index"):
        SearchIndex.open(tmp_path)
    build(tmp_path)
    (tmp_path / "chunks" / "texts.bin").write_bytes(b"short")
    with pytest.raises(InputError, match="5 chunks, 5 texts, 5 bytes"):
        SearchIndex.open(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        SearchIndex.open(tmp_path)
    with pytest.raises(InputError, match="limit is 0"):
        SearchIndex.open(folder).search("x", limit=0)
    with pytest.raises(InputError, match="query is empty"):
        SearchIndex.open(folder).search(" ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": "soon"}, "soon"),
        ({"threads": 0}, r"index\.threads is 0"),
        ({"max_tokens": 2}, r"index\.max_tokens is 2"),
    ],
)
def test_a_wrong_configuration_names_the_key(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        IndexConfig(**options)  # type: ignore[arg-type]


def test_a_missing_embedder_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(HighriseError, match=r'no model "none".*budget = "0 s"'):
        build_from_documents(IndexConfig(embedder="none"), sources(), tmp_path)


def _data_folder(folder: Path) -> Path:
    import msgspec

    pyarrow = pytest.importorskip("pyarrow")
    from highrise.core.manifest import build_stage
    from highrise.data.shards import SCHEMA, write_shards

    def write(out: Path) -> dict[str, int]:
        table = pyarrow.Table.from_pylist([msgspec.to_builtins(item) for item in sources()], schema=SCHEMA)
        return {"shards": write_shards(out, [table], shard_bytes=1 << 20)}

    build_stage(folder, stage="data", config=IndexConfig(), inputs={}, build=write)
    return folder


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = _data_folder(tmp_path / "data"), tmp_path / ".highrise" / "team" / "index"
    assert build_index(IndexConfig(budget="0 s"), data, tmp_path / "plain")["chunks"] == 5
    common = {
        "data": str(data),
        "out": str(out),
        "budget": "0 s",
        "embedder": "minilm-l6",
        "threads": 1,
        "store": "faiss",
    }
    assert run_index(argparse.Namespace(**common, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["reused"] is False
    assert run_index(argparse.Namespace(**common, json=False)) == 0
    assert "nothing had changed" in capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    search = {"index": None, "limit": 3, "language": None, "own": False, "mode": "fused"}
    assert run_search(argparse.Namespace(query="load_table", **search, json=False)) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("own/load.py:1-8  load_table") and "1 of 5 chunks" in printed.err
    assert run_search(argparse.Namespace(query="load_table", **search, json=True)) == 0
    assert json.loads(capsys.readouterr().out)[0]["end_line"] == 8
    with pytest.raises(InputError, match="has no cobol; it has markdown, python, rust"):
        run_search(argparse.Namespace(**{**search, "language": "cobol"}, query="x", json=False))


def test_which_index_is_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        find_index(tmp_path)
    for name in ("a", "b"):
        (tmp_path / ".highrise" / name / "index").mkdir(parents=True)
        (tmp_path / ".highrise" / name / "index" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match=r"2 indexes .*a/index, .*b/index"):
        find_index(tmp_path)


def test_real_weights_find_by_meaning(tmp_path: Path) -> None:
    folder = str(minilm_folder())
    build_from_documents(IndexConfig(embedder=folder, threads=1), sources(), tmp_path)
    assert paths(SearchIndex.open(tmp_path), "web service", mode="vector")[0].startswith("own/net")
