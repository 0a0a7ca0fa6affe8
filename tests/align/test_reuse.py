"""Which share of what an adapter was made of has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from highrise import build
from highrise.align.config import SftConfig
from highrise.align.reuse import changed_share, write_learnt
from highrise.core.document import Document
from highrise.core.manifest import build_stage
from highrise.data.shards import SCHEMA


def _document(number: int, size: int = 1000, text: str = "") -> Document:
    text = text or f"x{number:03d} = 1\n".ljust(size, "#")
    return Document(
        text=text,
        path=f"{number}.py",
        source=".",
        repository="r",
        language="python",
        license="MIT",
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        quality=1.0,
        own=True,
        split="train",
    )


def _data(folder: Path, documents: list[Document]) -> Path:
    (folder / "shards").mkdir(parents=True)
    rows = [msgspec.to_builtins(document) for document in documents]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "shards" / "00000.parquet")
    return folder


def test_changed_characters_are_counted_once(tmp_path: Path) -> None:
    old = [_document(number) for number in range(60)]
    write_learnt(tmp_path, old)
    assert changed_share(tmp_path, _data(tmp_path / "same", old)) == 0.0
    edited = [*old[:57], *(_document(number, text="y = 2\n" * 100) for number in range(57, 58)), *old[58:]]
    assert changed_share(tmp_path, _data(tmp_path / "edited", edited)) == pytest.approx(1 / 60)
    grown = [*old, *(_document(number) for number in range(100, 115))]
    assert changed_share(tmp_path, _data(tmp_path / "grown", grown)) == pytest.approx(15 / 60)
    assert changed_share(tmp_path, _data(tmp_path / "shrunk", old[:30])) == pytest.approx(0.5)


def test_a_little_change_keeps_the_adapter_and_much_tunes_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = build._Methods(methods=(SftConfig(),))
    old = [_document(number) for number in range(60)]
    folder, was = tmp_path / "align", {"data": "before", "weights": "w"}

    def tuned(out: Path) -> dict[str, int | float | str]:
        write_learnt(out, old)
        return {"kept": 1}

    build_stage(folder, stage="align", config=config, inputs=was, build=tuned)
    now = {"data": "after", "weights": "w"}
    little = _data(tmp_path / "little", [*old[1:], _document(100)])
    assert build._kept_inputs(folder, config, now, little) == was
    assert "1.7 % of the text" in capsys.readouterr().err
    much = _data(tmp_path / "much", [*old, *(_document(number) for number in range(100, 110))])
    assert build._kept_inputs(folder, config, now, much) == now
    assert "tuned again" in capsys.readouterr().err
    assert build._kept_inputs(folder, config, {"data": "after", "weights": "other"}, little)["weights"] == "other"
    other = build._Methods(methods=(SftConfig(budget="1 min"),))
    assert build._kept_inputs(folder, other, now, little) == now


def test_a_folder_that_does_not_say_is_no_answer(tmp_path: Path) -> None:
    assert changed_share(tmp_path, _data(tmp_path / "data", [_document(1)])) is None
