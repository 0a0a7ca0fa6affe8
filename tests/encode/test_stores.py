"""Vector stores: what every one of them must do, on real servers where there are such, and what is special to each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from highrise.cli import main
from highrise.core.errors import ConfigError, EncodeError, HighriseError, InputError
from highrise.encode import store as stores
from highrise.encode.index import IndexConfig, SearchIndex
from highrise.encode.index_build import build_from_documents
from highrise.encode.store import StoredRow, VectorStore, open_store, read_place
from tests.encode import recorded_services as recorded
from tests.encode.memory_store import MemoryStore
from tests.encode.minilm_weights import minilm_folder
from tests.encode.servers import PASSWORD, running_postgres
from tests.encode.test_chunk import document
from tests.encode.test_index import TopicEmbedder, _data_folder, paths, sources

pytestmark = pytest.mark.usefixtures("short_waits")
LANGUAGES = ("python", "rust", "c'++", 'q"uote')
Address = Callable[[str], str]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(ImportError):
        monkeypatch.setattr("highrise.encode.adapters.pinecone._POLL_SECONDS", 0.01)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed; it comes with the extra stores")
    with running_postgres() as address:
        yield address


@pytest.fixture(params=["memory", "pgvector", "milvus", "pinecone", "azure-search"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    """Name of a place to its URL, one kind of store after the other."""
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            monkeypatch.setitem(stores._OWN, "memory", "tests.encode.memory_store:MemoryStore")
            monkeypatch.setattr(MemoryStore, "places", {})
            yield lambda name: f"memory:///{name}"
        elif request.param == "pgvector":
            server = request.getfixturevalue("postgres")
            monkeypatch.setenv("PGPASSWORD", PASSWORD)
            mark = abs(hash(request.node.name)) % 10**6
            yield lambda name: f"{server}?table={name}_{mark}"
        elif request.param == "milvus":
            pytest.importorskip("pymilvus", reason="pymilvus is not installed; it comes with the extra milvus")
            pytest.importorskip("milvus_lite", reason="milvus-lite is not installed; it comes with the extra milvus")
            yield lambda name: f"milvus://{tmp_path / 'milvus.db'}?collection={name}"
        elif request.param == "pinecone":
            pytest.importorskip("httpx", reason="httpx is not installed; it comes with the extra stores")
            monkeypatch.setenv("PINECONE_API_KEY", recorded.KEY)
            service = stack.enter_context(recorded.running(recorded.Pinecone()))
            yield lambda name: f"pinecone+{service.url}/{name}/team?cloud=aws&region=us-east-1"
        else:
            pytest.importorskip("httpx", reason="httpx is not installed; it comes with the extra stores")
            monkeypatch.setenv("AZURE_SEARCH_API_KEY", recorded.KEY)
            service = stack.enter_context(recorded.running(recorded.AzureSearch()))
            yield lambda name: f"azure-search+{service.url}/{name}"


def rows_of(count: int, *, dimension: int = 16, seed: int = 0) -> tuple[list[StoredRow], np.ndarray]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        StoredRow(
            f"{seed:04x}{number:028x}", f"src/{number} é\udc80.py", "team", LANGUAGES[number % 4], number % 3 == 0
        )
        for number in range(count)
    ]
    return rows, vectors


def nearest(rows: list[StoredRow], vectors: np.ndarray, query: np.ndarray, limit: int, **wanted: object) -> list[str]:
    """Every row looked at."""
    languages, own = wanted.get("languages"), wanted.get("own")
    scores = [
        (-float(vector @ query), row.id)
        for row, vector in zip(rows, vectors, strict=True)
        if (languages is None or row.language in languages) and (own is None or row.own == own)  # type: ignore[operator]
    ]
    return [id for _, id in sorted(scores)[:limit]]


@contextlib.contextmanager
def opened(url: str, *, dimension: int = 16, create: bool = True) -> Iterator[VectorStore]:
    store = open_store(url, dimension=dimension, create=create)
    try:
        yield store
    finally:
        store.close()


def test_what_every_store_does(address: Address) -> None:
    rows, vectors = rows_of(240)
    advanced: list[int] = []
    with opened(address("code")) as store:
        assert store.ids() == set() and store.count() == 0
        store.upsert(rows, vectors, advance=advanced.append)
        assert sum(advanced) == 240 and store.count() == 240
        assert store.ids() == {row.id for row in rows}
        for number in (3, 77):
            query = vectors[number]
            found = store.search(query, 5)
            assert found[0] == rows[number].id
            assert len(set(found) & set(nearest(rows, vectors, query, 5))) >= 4
    with opened(address("code"), create=False) as store:
        for language in LANGUAGES:
            expected = nearest(rows, vectors, vectors[0], 5, languages=[language])
            assert store.search(vectors[0], 5, languages=[language])[0] == expected[0]
        both = store.search(vectors[0], 300, languages=["python", 'q"uote'], own=True)
        assert sorted(both) == sorted(row.id for row in rows if row.own and row.language in ("python", 'q"uote'))
        assert store.search(vectors[0], 5, languages=["cobol"]) == []
        assert store.search(vectors[0], 5, languages=[]) == []
        assert {row.id: row.own for row in rows}[store.search(vectors[1], 1, own=False)[0]] is False
        store.upsert(rows[:1], -vectors[:1])  # a row with the same id is replaced
        assert store.count() == 240 and store.search(-vectors[0], 1) == [rows[0].id]
        store.delete([rows[0].id, rows[1].id, "f" * 32])
        assert store.count() == 238 and rows[0].id not in store.ids()


def test_a_place_that_is_not_there_is_one_sentence(address: Address) -> None:
    with (
        pytest.raises(HighriseError, match=r"build the index again|refused the request"),
        opened(address("nothing"), create=False) as store,
    ):
        store.count()


def test_another_dimension_is_refused(address: Address) -> None:
    rows, vectors = rows_of(2)
    with opened(address("code")) as store:
        store.upsert(rows, vectors)
    with pytest.raises(ConfigError, match=r"16 numbers.*gives 8"):
        open_store(address("code"), dimension=8, create=True)


def build(out: Path, url: str, previous: Path | None = None, documents: list | None = None) -> dict[str, object]:  # type: ignore[type-arg]
    return dict(
        build_from_documents(
            IndexConfig(threads=1, store=url),
            sources() if documents is None else documents,
            out,
            embedder=TopicEmbedder(),
            previous=previous,
        )
    )


def test_an_index_in_a_store_finds_what_one_in_a_folder_finds(address: Address, tmp_path: Path) -> None:
    build(tmp_path / "folder", "faiss")
    counts = build(tmp_path / "stored", address("code"))
    assert (counts["sent"], counts["removed"], counts["unchanged"]) == (5, 0, 0)
    assert not (tmp_path / "stored" / "vectors" / "index.faiss").exists()
    here = SearchIndex.open(tmp_path / "folder", embedder=TopicEmbedder())
    there = SearchIndex.open(tmp_path / "stored", embedder=TopicEmbedder())
    for options in ({}, {"languages": ["Rust"]}, {"own": True}, {"own": False, "limit": 1}, {"mode": "vector"}):
        for query in ("open disk", "mean square", "request port server"):
            found, expected = ([hit.path for hit in index.search(query, **options)] for index in (there, here))  # type: ignore[arg-type]
            assert set(found) == set(expected), (query, options)  # among equal vectors the order is free
    assert paths(there, "mean square")[0] == "ref/math.py" and paths(there, "open disk")[0] == "own/load.py"
    assert there.note == ""
    there.close()

    # only what changed travels
    changed = [*sources()[1:], document("def fresh():\n    return open('disk')\n", path="own/new.py")]
    counts = build(tmp_path / "next", address("code"), tmp_path / "stored", changed)
    assert (counts["sent"], counts["removed"], counts["unchanged"], counts["reused_vectors"]) == (1, 1, 4, 4)
    again = build(tmp_path / "again", address("code"), tmp_path / "next", changed)
    assert (again["sent"], again["removed"], again["unchanged"]) == (0, 0, 5)
    index = SearchIndex.open(tmp_path / "again", embedder=TopicEmbedder())
    assert "own/new.py" in paths(index, "read disk", mode="vector") and "own/load.py" not in paths(index, "read disk")
    index.close()


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(stores._OWN, "memory", "tests.encode.memory_store:MemoryStore")
    monkeypatch.setattr(MemoryStore, "places", {})
    return "memory:///code"


def test_rows_of_another_index_are_not_removed(memory: str, tmp_path: Path) -> None:
    build(tmp_path / "one", memory)
    other = [document("def other():\n    return 1\n", path="other.py")]
    with pytest.raises(InputError, match="holds 5 rows of another index"):
        build(tmp_path / "two", memory, documents=other)
    assert len(MemoryStore.places["code"]) == 5
    build(tmp_path / "three", memory, tmp_path / "one", other)  # the same index, all of it new
    assert len(MemoryStore.places["code"]) == 1


def test_a_killed_build_sends_the_rest(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MemoryStore.upsert

    def half(self: MemoryStore, rows: list[StoredRow], vectors: np.ndarray, **_: object) -> None:
        whole(self, rows[:2], vectors[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "upsert", half)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "one", memory)
    counts = build(tmp_path / "one", memory)
    assert (counts["sent"], counts["unchanged"]) == (3, 2)


def test_while_the_store_is_away_words_decide(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, memory)
    index = SearchIndex.open(tmp_path, embedder=TopicEmbedder())
    assert paths(index, "product root")[0] == "ref/math.py" and index.note == ""
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "failing", True)
        assert paths(index, "product root") == [] and paths(index, "average") == ["ref/math.py"]
        assert index.note == "searched by words alone: the store is away"
        with pytest.raises(InputError, match="the store is away"):
            index.search("average", mode="vector")
    assert paths(index, "product root") == []  # left alone for half a minute
    monkeypatch.setattr("highrise.encode.index._TRY_AGAIN_SECONDS", 0.0)
    index._try_again = 0.0
    assert paths(index, "product root")[0] == "ref/math.py" and index.note == ""
    MemoryStore.places["code"].clear()
    empty = SearchIndex.open(tmp_path, embedder=TopicEmbedder())
    assert paths(empty, "average") == ["ref/math.py"] and "holds no rows" in empty.note


def test_equal_chunks_share_a_row_and_all_are_found(memory: str, tmp_path: Path) -> None:
    counts = build(tmp_path, memory, documents=[sources()[0], sources()[0]])
    assert counts["sent"] == 1 and counts["embedded"] == 2
    assert len(paths(SearchIndex.open(tmp_path, embedder=TopicEmbedder()), "disk", mode="vector")) == 2


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///x", "names no store"),
        ("nonsense", "names no store"),
        ("postgresql://me:secret@host/db?table=t", "PGPASSWORD"),
        ("pinecone://index/space?api_key=abc", "PINECONE_API_KEY"),
        ("azure-search://s.search.windows.net/i?key=abc", "AZURE_SEARCH_API_KEY"),
        ("milvus://host:19530/c?token=abc", "MILVUS_TOKEN"),
        ("postgresql://[bad/db", "is no address"),
    ],
)
def test_a_wrong_address_is_refused_by_the_configuration(url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        IndexConfig(store=url)
    assert "secret@" not in str(caught.value) and "abc" not in str(caught.value)


def test_an_address_taken_apart() -> None:
    place = read_place("milvus+https://cloud:443/code?a=b")
    assert (place.kind, place.transport, place.host, place.path) == ("milvus", "https", "cloud:443", "code")
    assert place.options == {"a": "b"} and place.user == ""
    assert read_place("postgresql://me@db:1/code?table=t").user == "me"


def test_a_name_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_SEARCH_API_KEY", "x")
    with pytest.raises(ConfigError, match=r"must name a search index .*Upper"):
        open_store("azure-search://s.search.windows.net/Upper", dimension=4, create=True)
    pytest.importorskip("psycopg", reason="psycopg is not installed; it comes with the extra stores")
    with pytest.raises(ConfigError, match=r"must name a table.*it is missing"):
        open_store("postgresql://h/db", dimension=4, create=True)


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stores._OWN, "memory", "no_such_package:Store")
    with pytest.raises(EncodeError, match=r"no_such_package.*highrise\[stores\]"):
        open_store("memory:///x", dimension=4, create=True)


def test_milvus_lists_more_ids_than_one_answer_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    milvus = pytest.importorskip("highrise.encode.adapters.milvus", reason="the extra milvus is not installed")
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed; it comes with the extra milvus")
    monkeypatch.setattr(milvus, "_MOST_FOUND", 20)
    rows, vectors = rows_of(70, dimension=4)
    rows = [StoredRow(f"{number * 7919 % 251:02x}" + row.id[2:], *("x",) * 3, True) for number, row in enumerate(rows)]
    with opened(f"milvus://{tmp_path / 'many.db'}?collection=many", dimension=4) as store:
        store.upsert(rows, vectors)
        assert store.ids() == {row.id for row in rows}


def test_postgres_refuses_a_wrong_password_and_comes_back(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(EncodeError, match=r"cannot connect to .*password authentication failed"):
        open_store(f"{postgres}?table=t", dimension=4, create=True)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    rows, vectors = rows_of(3)
    with opened(f"{postgres}?table=cut_off") as store, opened(f"{postgres}?table=other") as killer:
        store.upsert(rows, vectors)
        others = "WHERE pid <> pg_backend_pid() AND usename = 'postgres'"
        kill = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {others}"
        killer._connection.execute(kill)  # type: ignore[attr-defined]
        assert store.count() == 3  # a lost connection is made anew


@pytest.fixture
def pinecone(monkeypatch: pytest.MonkeyPatch) -> Iterator[recorded.Pinecone]:
    pytest.importorskip("httpx", reason="httpx is not installed; it comes with the extra stores")
    monkeypatch.setenv("PINECONE_API_KEY", recorded.KEY)
    with recorded.running(recorded.Pinecone()) as service:
        assert isinstance(service, recorded.Pinecone)
        yield service


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[recorded.AzureSearch]:
    pytest.importorskip("httpx", reason="httpx is not installed; it comes with the extra stores")
    monkeypatch.setenv("AZURE_SEARCH_API_KEY", recorded.KEY)
    with recorded.running(recorded.AzureSearch()) as service:
        assert isinstance(service, recorded.AzureSearch)
        yield service


def test_pinecone_makes_an_index_only_where_it_is_told_to(pinecone: recorded.Pinecone) -> None:
    with pytest.raises(ConfigError, match=r"no Pinecone index code.*cloud=aws"):
        open_store(f"pinecone+{pinecone.url}/code", dimension=16, create=True)
    with opened(f"pinecone+{pinecone.url}/code?cloud=aws&region=eu-west-1"):
        pass
    assert pinecone.index is not None and pinecone.polls == 1
    assert pinecone.index["spec"] == {"serverless": {"cloud": "aws", "region": "eu-west-1"}}
    assert (pinecone.index["dimension"], pinecone.index["metric"]) == (16, "cosine")
    pinecone.index["metric"] = "euclidean"
    with pytest.raises(ConfigError, match="by distance"):
        open_store(f"pinecone+{pinecone.url}/code", dimension=16, create=True)


def test_pinecone_keeps_the_limits_of_a_request(pinecone: recorded.Pinecone) -> None:
    with opened(f"pinecone+{pinecone.url}/code?cloud=aws&region=r") as store:
        store.upsert(*rows_of(1150))
        assert [path for path in pinecone.asked if "upsert" in path] == ["POST /vectors/upsert"] * 2
        assert store.count() == 1150 and len(store.ids()) == 1150
        store.delete(sorted(store.ids()))
        assert store.count() == 0 and pinecone.asked.count("POST /vectors/delete") == 2
    pinecone.index = None
    with opened(f"pinecone+{pinecone.url}/wide?cloud=aws&region=r", dimension=3072) as store:
        store.upsert(*rows_of(80, dimension=3072))
        assert store.count() == 80 and 1_500_000 < max(pinecone.bodies) <= 2_000_000


def test_a_busy_service_is_asked_again(
    pinecone: recorded.Pinecone, azure: recorded.AzureSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    # of that module alone: other threads of the tests' process sleep too
    monkeypatch.setattr("highrise.encode.adapters.rest.time", SimpleNamespace(sleep=pauses.append, time=time.time))
    for service, url in (
        (pinecone, f"pinecone+{pinecone.url}/code?cloud=aws&region=r"),
        (azure, f"azure-search+{azure.url}/code"),
    ):
        with opened(url) as store:
            store.upsert(*rows_of(3))
            pauses.clear()
            service.busy = [
                (429, {"Retry-After": "7"}, "slow down"),
                (503, {}, None),
                (429, {"Retry-After": "900"}, ""),
            ]
            assert store.count() == 3 and pauses == [7.0, 1.0, 60.0]
            pauses.clear()
            service.busy = [(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None)]
            assert store.count() == 3 and pauses == [0.0]
            service.busy = [(503, {}, "maintenance")] * 7
            with pytest.raises(EncodeError, match=r"gave no answer \(status 503: .*maintenance.*start again later"):
                store.count()
            assert not service.busy


def test_a_wrong_key_is_one_sentence_without_it(
    pinecone: recorded.Pinecone, azure: recorded.AzureSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, url in (
        ("PINECONE_API_KEY", f"pinecone+{pinecone.url}/code"),
        ("AZURE_SEARCH_API_KEY", f"azure-search+{azure.url}/code"),
    ):
        monkeypatch.setenv(variable, "wrong-key")
        with pytest.raises(InputError, match=f"refuses the key in {variable}") as caught:
            open_store(url, dimension=16, create=True)
        assert "wrong-key" not in str(caught.value)
        monkeypatch.delenv(variable)
        with pytest.raises(InputError, match=f"environment variable {variable}"):
            open_store(url, dimension=16, create=True)


def test_azure_sends_refused_rows_again(azure: recorded.AzureSearch) -> None:
    rows, vectors = rows_of(1100)
    with opened(f"azure-search+{azure.url}/code") as store:
        azure.refuse = [{5: 503, 6: 429}, {0: 503}]
        store.upsert(rows, vectors)
        assert store.count() == 1100 and len(store.ids()) == 1100
        azure.refuse = [{1: 400}]
        with pytest.raises(EncodeError, match=r"refused 1 rows .*400: refused"):
            store.upsert(rows[:3], vectors[:3])
        azure.refuse = [{0: 503}] * 9
        with pytest.raises(EncodeError, match="too busy for 1 rows"):
            store.upsert(rows[:1], vectors[:1])


def test_azure_refuses_a_foreign_index(azure: recorded.AzureSearch) -> None:
    azure.index = {"name": "code", "fields": [{"name": "id", "type": "Edm.String"}]}
    with pytest.raises(ConfigError, match="name another index"):
        open_store(f"azure-search+{azure.url}/code", dimension=16, create=True)


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("httpx", reason="httpx is not installed; it comes with the extra stores")
    monkeypatch.setenv("AZURE_SEARCH_API_KEY", "x")
    clock = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr("highrise.encode.adapters.rest.time", clock)
    with pytest.raises(EncodeError, match=r"gave no answer \(ConnectError"):
        open_store("azure-search+http://127.0.0.1:1/code", dimension=4, create=True)


def test_the_commands_use_a_store(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    weights = str(minilm_folder())
    data, out = str(_data_folder(tmp_path / "data")), str(tmp_path / "index")
    url = f"{postgres}?table=commands"
    assert main(["encode", "index", data, out, "--store", url, "--embedder", weights]) == 0
    assert "5 embedded (postgresql, 0 taken over)" in (said := capsys.readouterr().out) and "5 rows sent" in said
    assert PASSWORD not in (tmp_path / "index" / "manifest.json").read_text()
    assert main(["encode", "index", data, out, "--store", url, "--embedder", weights]) == 0
    assert "nothing had changed" in capsys.readouterr().out
    assert main(["encode", "search", "web service", "--index", out, "--mode", "vector", "--limit", "1"]) == 0
    assert capsys.readouterr().out.startswith("own/net")
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert main(["encode", "search", "load_table", "--index", out]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("own/load.py") and "searched by words alone: cannot connect" in said.err
    assert main(["encode", "index", data, out, "--store", "redis://x"]) == 2
    assert "names no store" in capsys.readouterr().err
