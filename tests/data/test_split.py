"""Held-out groups: whole, of about the right size, never empty, the same each time."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from highrise.core.native import rust
from highrise.data import duplicates
from highrise.data.build import build_dataset
from highrise.data.config import DataConfig
from highrise.data.shards import read_documents
from highrise.data.split import LEVELS, split_documents
from tests.data.conftest import module
from tests.reference import split as slow

SIDES = ("train", "validation")

Rows = list[tuple[str, str, bool]]


def split_rows(rows: Rows, *, share: float, seed: int, clusters: list[int] | None = None) -> slow.Split:
    """What `split_documents` makes of a table, as the slow twin says it."""
    names = ("repository", "path", "own")
    types = (pa.string(), pa.string(), pa.bool_())
    columns = [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(types)]
    table = pa.table(dict(zip(names, columns, strict=True)))
    if clusters is not None:
        table = table.append_column("cluster", pa.array(clusters, pa.int64()))
    found = split_documents(table, share=share, seed=seed)
    return slow.Split(sides=["validation" if held else "train" for held in found.held], levels=found.levels)


rows_of = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x/1", "x/2", "y/1", "z", "w/3"]), st.booleans()),
    max_size=120,
).map(lambda rows: [(repository, f"{path}{i}.py", own) for i, (repository, path, own) in enumerate(rows)])


@given(rows_of, st.sampled_from([0.0, 0.02, 0.05, 0.2, 0.5]), st.integers(0, 5))
def test_properties(rows: list[tuple[str, str, bool]], share: float, seed: int) -> None:
    related = split_rows(rows, share=share, seed=seed, clusters=[i % 7 for i in range(len(rows))])
    assert len({(i % 7, side) for i, side in enumerate(related.sides)}) == min(7, len(rows))
    assert related == slow.split_rows(rows, share=share, seed=seed, clusters=[i % 7 for i in range(len(rows))])
    split = split_rows(rows, share=share, seed=seed)
    assert split == slow.split_rows(rows, share=share, seed=seed)
    held = [row for row, side in zip(rows, split.sides, strict=True) if side == "validation"]
    assert len(split.sides) == len(rows)
    if share == 0:
        assert not held
        return
    for own in (True, False):
        members = [row for row in rows if row[2] is own]
        mine = [row for row in held if row[2] is own]
        if len(members) >= 20:
            assert 0 < len(mine) < len(members)
            assert len(mine) <= 2 * max(1.0, share * len(members))
    if len(rows) >= 20:
        assert held or max(sum(row[2] for row in rows), sum(not row[2] for row in rows)) < 2
    sides = defaultdict(set)
    for (repository, path, own), side in zip(rows, split.sides, strict=True):
        level = split.levels.get("own" if own else "reference")
        if level == LEVELS[0]:
            sides[own, repository].add(side)
        elif level == LEVELS[1]:
            sides[own, repository, path.partition("/")[0] if "/" in path else ""].add(side)
    assert all(len(found) == 1 for found in sides.values())


def test_repositories_stay_whole_when_there_are_many() -> None:
    rows = [(f"r{i % 40}", f"src/{i}.py", True) for i in range(400)]
    split = split_rows(rows, share=0.05, seed=0)
    assert split.levels == {"own": "repository"}
    assert split.sides.count("validation") == 20


def test_one_repository_is_split_by_top_folder_or_document() -> None:
    folders = [("r", f"{'abcdefghijklmnopqrst'[i % 20]}/{i}.py", True) for i in range(200)]
    assert split_rows(folders, share=0.05, seed=0).levels == {"own": "top folder"}
    flat = [("r", f"{i}.py", True) for i in range(200)]
    split = split_rows(flat, share=0.05, seed=0)
    assert split.levels == {"own": "document"} and split.sides.count("validation") == 10


def test_twenty_documents_always_hold_one_out() -> None:
    assert "validation" in split_rows([("r", f"{i}.py", True) for i in range(20)], share=0.001, seed=9).sides


@st.composite
def families(draw: st.DrawFn) -> list[tuple[str, str]]:
    """(repository, text): modules with edited copies in other repositories, each copy an edit of the one before."""
    rows = []
    for number in range(draw(st.integers(8, 14))):
        lines = module(number, lines=60).split("\n")
        rows.append((draw(st.sampled_from("abcdef")), "\n".join(lines)))
        for copy in range(draw(st.integers(0, 3))):
            for place in draw(st.lists(st.integers(5, 60), max_size=4)):
                lines[place] = f"    changed_{number}_{copy}_{place} = {place}"
            rows.append((draw(st.sampled_from("abcdef")), "\n".join(lines)))
    return rows


@settings(max_examples=12)
@given(families(), st.sampled_from([0.0, 0.8]), st.sampled_from([1, 10**9]), st.sampled_from([0.05, 0.2, 0.5]))
def test_near_duplicates_are_never_on_both_sides(
    rows: list[tuple[str, str]], near: float, search_memory: int, share: float
) -> None:
    """Of a whole build, by exact comparison of every pair, whether or not near duplicates are dropped."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in.jsonl")
        lines = [
            json.dumps({"repository": repository, "path": f"{number}.py", "text": text})
            for number, (repository, text) in enumerate(rows)
        ]
        source.write_text("\n".join(lines))
        config = DataConfig(sources=(str(source),), near_duplicate=near, validation=share, search_memory=search_memory)
        build_dataset(config, Path(folder, "out"), workers=0)
        documents = list(read_documents(Path(folder, "out")))
    sides = [[document.text.encode() for document in documents if document.split == name] for name in SIDES]
    chosen = duplicates.settings()
    for left in sides[0]:
        for right in sides[1]:
            assert rust.data.exact_jaccard(left, right, chosen) < 0.9
