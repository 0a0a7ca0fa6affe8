"""What is made of a build: other tools read it, two are compared, people judge it, mixtures are drawn."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from highrise.cli import main
from highrise.core.config import convert
from highrise.core.errors import ConfigError, InputError
from highrise.data.build import build_data
from highrise.data.config import CleaningConfig, DataConfig
from highrise.data.labels import export_tasks, read_verdicts
from highrise.data.mixture import MixtureConfig, mix, plan
from highrise.data.shards import read_documents
from tests.data.conftest import MakeRepository, module


@pytest.fixture
def built(make_repository: MakeRepository, tmp_path: Path) -> Path:
    make_repository("a", {f"m{n}.py": module(n) for n in range(40)})
    make_repository("b", {f"m{n}.py": module(n) for n in range(100, 110)})
    build_data(DataConfig(sources=(str(tmp_path / "a"), str(tmp_path / "b"))), tmp_path / "data", workers=0)
    return tmp_path / "data"


def test_datasets_and_duckdb_read_the_shards(built: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    pattern = str(built / "shards" / "*.parquet")
    texts = sorted(document.text for document in read_documents(built))
    loaded = datasets.load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["text"]) == texts
    streamed = datasets.load_dataset("parquet", data_files=pattern, split="train", streaming=True)
    assert sorted(row["text"] for row in streamed) == texts
    rows = duckdb.sql(f"select text, split from read_parquet('{pattern}')").fetchall()
    assert sorted(text for text, _ in rows) == texts and {side for _, side in rows} == {"train", "validation"}


def test_the_card_has_plots(built: Path) -> None:
    card = (built / "DATACARD.md").read_text()
    for name in ("length", "language", "duplicates", "quality"):
        assert f"plots/{name}.svg" in card
        tree = ElementTree.parse(built / "plots" / f"{name}.svg")
        assert len(tree.getroot().findall("{http://www.w3.org/2000/svg}rect")) > 1


def test_diff(built: Path, make_repository: MakeRepository, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a" / "m0.py").write_text(module(900))
    (tmp_path / "a" / "m1.py").unlink()
    (tmp_path / "a" / "m2.py").write_text("def f(:\n")
    (tmp_path / "a" / "n.py").write_text(module(901))
    other = tmp_path / "other"
    build_data(DataConfig(sources=(str(tmp_path / "a"), str(tmp_path / "b"))), other, workers=0)
    assert main(["data", "diff", str(built), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["changed"] == ["a/m0.py"] and found["added"] == ["a/n.py"]
    assert found["now_dropped"] == [["a/m1.py", "missing"], ["a/m2.py", "broken"]] and found["same"] == 47
    assert main(["data", "diff", str(built), str(other)]) == 0
    assert "1 changed\n  a/m0.py" in capsys.readouterr().out
    assert main(["data", "diff", str(built), str(tmp_path / "a")]) == 2


def test_people_reject_documents(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "label", str(built), str(tmp_path / "tasks.json"), "--count", "5"]) == 0
    assert 'verdicts = "tasks.json"' in capsys.readouterr().out
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert len(tasks) == 5 and all(task["data"]["text"] for task in tasks)
    for number, task in enumerate(tasks):
        choice = "drop" if number < 2 else "keep"
        task["annotations"] = [
            {"result": [{"value": {"choices": [choice]}, "type": "choices"}], "was_cancelled": number == 4}
        ]
    (tmp_path / "judged.json").write_text(json.dumps(tasks))
    assert Counter(read_verdicts(tmp_path / "judged.json").values()) == {"drop": 2, "keep": 2}
    config = DataConfig(sources=(str(tmp_path / "a"), str(tmp_path / "b")), verdicts=str(tmp_path / "judged.json"))
    counts = build_data(config, built, workers=0)[0].counts
    assert counts["dropped: rejected"] == 2 and counts["documents"] == 48
    lowest = {document.sha256 for document in sorted(read_documents(built), key=lambda d: d.quality)[:1]}
    export_tasks(built, tmp_path / "worst.json", count=48, worst=True)
    assert json.loads((tmp_path / "worst.json").read_text())[0]["data"]["quality"] == min(
        document.quality for document in read_documents(built) if document.sha256 in lowest
    )
    (tmp_path / "judged.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        read_verdicts(tmp_path / "judged.json")


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**6), min_size=1),
    st.floats(0.5, 5),
    st.floats(0.1, 6),
    st.floats(0.5, 8),
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 9)),
)
@example({"a": 1}, 1.0, 1.5, 2.0, {"a": 5e-324})  # a weight so small that a product with it rounds
def test_a_plan_fills_its_budget(
    sizes: dict[str, int], temperature: float, epochs: float, most: float, weights: dict[str, float]
) -> None:
    weights = {name: weight for name, weight in weights.items() if name in sizes}
    config = MixtureConfig(weights=weights, temperature=temperature, epochs=epochs, max_epochs=most)
    found = plan(sizes, config)
    assert found.keys() == sizes.keys() and all(0 <= value <= most * 1.000001 for value in found.values())
    assert all(found[name] == 0 for name, weight in weights.items() if weight == 0)
    seen = sum(found[name] * size for name, size in sizes.items())
    open_groups = [name for name in sizes if weights.get(name, 1) > 0]
    possible = sum(most * sizes[name] for name in open_groups)
    assert seen == pytest.approx(min(epochs * sum(sizes.values()), possible), rel=1e-6)


def test_proportions_are_those_of_weight_and_temperature() -> None:
    sizes = {"a": 900, "b": 100}
    assert plan(sizes, MixtureConfig()) == {"a": 1.0, "b": 1.0}
    square = plan(sizes, MixtureConfig(temperature=2))
    assert square["a"] * 900 == pytest.approx(750) and square["b"] * 100 == pytest.approx(250)
    halved = plan(sizes, MixtureConfig(weights={"a": 0.5}))
    assert halved["a"] / halved["b"] == pytest.approx(0.5)


def test_a_mixture_is_a_data_folder(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = MixtureConfig(by="repository", weights={"b": 6}, epochs=1.5, max_epochs=3, seed=1)
    mix(built, tmp_path / "mixed", config)
    assert mix(built, tmp_path / "mixed", config)[1]
    before = Counter(d.sha256 for d in read_documents(built, split="train"))
    documents = list(read_documents(tmp_path / "mixed", split="train"))
    seen = Counter(document.sha256 for document in documents)
    by_repository: dict[str, set[int]] = {"a": set(), "b": set()}
    for document in documents:
        by_repository[document.repository].add(seen[document.sha256])
    assert by_repository["b"] <= {2, 3} and max(by_repository["a"]) <= 2 and seen.keys() <= before.keys()
    assert [d.sha256 for d in read_documents(tmp_path / "mixed", split="validation")] == [
        d.sha256 for d in read_documents(built, split="validation")
    ]
    mix(built, tmp_path / "again", config)
    for shard in (tmp_path / "mixed" / "shards").iterdir():
        assert shard.read_bytes() == (tmp_path / "again" / "shards" / shard.name).read_bytes()
    assert main(["data", "mix", str(built), str(tmp_path / "c"), "--by", "repository", "--weight", "b=0"]) == 0
    assert "0.00 epochs of b" in capsys.readouterr().out
    assert main(["data", "mix", str(built), str(tmp_path / "d"), "--weight", "b"]) == 2
    with pytest.raises(ConfigError, match='there is no repository "z"'):
        mix(built, tmp_path / "z", MixtureConfig(by="repository", weights={"z": 1}))


@pytest.mark.parametrize("order", ["seed", "length"])
def test_a_mixture_that_is_put_in_order_in_files_is_the_same(built: Path, tmp_path: Path, order: str) -> None:
    found = []
    for memory in (10**9, 5_000):
        config = convert({"epochs": 2.5, "order": order, "memory": memory}, MixtureConfig, where="test")
        mix(built, tmp_path / str(memory), config)
        found.append(list(read_documents(tmp_path / str(memory))))
        assert not (tmp_path / str(memory) / "work").exists()
    assert found[0] == found[1] and len(found[0]) > 100


@pytest.mark.parametrize("order", ["length", "quality"])
def test_a_curriculum_goes_up_in_each_pass(built: Path, tmp_path: Path, order: str) -> None:
    config = convert({"epochs": 2.0, "order": order}, MixtureConfig, where="test")
    mix(built, tmp_path / "mixed", config)
    documents = list(read_documents(tmp_path / "mixed", split="train"))
    half = len(documents) // 2
    for passed in (documents[:half], documents[half:]):
        ranks = [len(d.text.encode()) if order == "length" else d.quality for d in passed]
        assert ranks == sorted(ranks) and len({d.sha256 for d in passed}) == half
    plain = list(read_documents(built, split="train"))
    assert Counter(d.sha256 for d in documents) == Counter(d.sha256 for d in [*plain, *plain])
    assert main(["data", "mix", str(built), str(tmp_path / "cli"), "--epochs", "2", "--order", order]) == 0
    for shard in (tmp_path / "mixed" / "shards").iterdir():
        assert shard.read_bytes() == (tmp_path / "cli" / "shards" / shard.name).read_bytes()


def test_ruff_is_a_part_of_the_score(make_repository: MakeRepository, tmp_path: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is not installed")
    bad = "import os\nimport sys\n\n\ndef f(a=[]):\n    try:\n        x = 1\n    except:\n        pass\n" * 3
    good = '"""Adds."""\n\n\ndef add(first: int, second: int) -> int:\n    """The sum."""\n    return first + second\n'
    folder = make_repository("team", {"good.py": good, "bad.py": bad})
    config = DataConfig(sources=(str(folder),), cleaning=CleaningConfig(lint=True))
    build_data(config, tmp_path / "data", workers=0)
    quality = {document.path: document.quality for document in read_documents(tmp_path / "data")}
    build_data(DataConfig(sources=(str(folder),)), tmp_path / "plain", workers=0)
    plain = {document.path: document.quality for document in read_documents(tmp_path / "plain")}
    assert quality["bad.py"] < plain["bad.py"] and quality["good.py"] >= plain["good.py"]
