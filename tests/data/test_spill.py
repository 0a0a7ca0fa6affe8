"""The search in files against the one in memory: any memory, nulls, folders, kills at random moments, a full disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from highrise.cli import main
from highrise.core.errors import InputError
from highrise.data.duplicates import Verify, deduplicate, settings
from highrise.data.spill import deduplicate_table, work_folder
from highrise.data.tables import open_table
from tests.data.test_duplicates import chain, families


def many(count: int, seed: int = 1) -> list[str]:
    """Texts of which a third are edited copies and a tenth equal ones."""
    generator = random.Random(seed)
    texts: list[str] = []
    for number in range(count):
        if texts and generator.random() < 0.43:
            words = generator.choice(texts[-300:]).split(" ")
            for _ in range(generator.choice([0, 1, 2, 4, 8])):
                words[generator.randrange(len(words))] = f"e{number}"
            texts.append(" ".join(words))
        else:
            texts.append(" ".join(f"w{generator.randrange(3000)}" for _ in range(generator.randrange(20, 120))))
    return texts


def labels_of(target: Path) -> list[int]:
    return pq.read_table(target.with_name(f"{target.name}.clusters.parquet")).column("cluster").to_pylist()


@given(
    st.lists(families(), min_size=1, max_size=3),
    st.sampled_from(["none", "estimate", "borderline", "exact"]),
    st.sampled_from([None, 0.03]),
    st.sampled_from([None, 0.5, 0.8]),
    st.sampled_from(["parquet", "jsonl"]),
    st.integers(0, 10**6),
)
@options(max_examples=15)
def test_clusters_are_those_in_memory(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[bytes]],
    verify: Verify,
    slack: float | None,
    threshold: float | None,
    ending: str,
    number: int,
) -> None:
    texts = [text.decode() for group in groups for text in group] + [text.decode() for text in chain(7)]
    random.Random(number).shuffle(texts)
    folder = tmp_path_factory.mktemp("spill")
    source, target = folder / f"in.{ending}", folder / f"out.{ending}"
    write(source, texts)
    chosen = settings(verify=verify, slack=slack, threshold=threshold, threads=2, shingle="3 words")
    found = deduplicate_table(open_table(source, "text"), target, chosen, memory=1)
    expected = deduplicate(texts, verify=verify, slack=slack, threshold=threshold, threads=1, shingle="3 words")
    assert labels_of(target) == expected.cluster.tolist()
    assert read(target) == [text for text, keep in zip(texts, expected.keep, strict=True) if keep]
    for name in ("texts", "bytes", "clusters", "largest_cluster", "exact_duplicates", "near_duplicates", "cut_off"):
        assert found[name] == expected.statistics[name]
    assert not work_folder(target).exists()
    shutil.rmtree(folder)


def write(path: Path, texts: list[Any], first: int = 0) -> None:
    rows = [{"id": number, "text": text} for number, text in enumerate(texts, first)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=50)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))


def read(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        found: list[Any] = pq.read_table(path).column("text").to_pylist()
        return found
    return [json.loads(line)["text"] for line in path.read_text().splitlines()]


def test_little_memory_changes_nothing(tmp_path: Path) -> None:
    texts = many(3000)
    write(tmp_path / "in.parquet", texts)
    expected = deduplicate(texts, threads=1)
    for memory in (1, 1 << 20, 1 << 30):
        target = tmp_path / f"out-{memory}.parquet"
        deduplicate_table(open_table(tmp_path / "in.parquet", "text"), target, settings(), memory=memory)
        assert labels_of(target) == expected.cluster.tolist()
    assert 1000 < expected.keep.sum() < 2500


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_absent_texts_are_like_no_other(tmp_path: Path, ending: str) -> None:
    source, target = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    write(source, ["a b c", None, "", "a b c", None, ""])
    found = deduplicate_table(open_table(source, "text"), target, settings(), memory=1)
    assert labels_of(target) == [0, 1, 2, 0, 4, 2]
    assert read(target) == ["a b c", None, "", None]
    assert found["absent_texts"] == 2 and found["kept"] == 4


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_folders(tmp_path: Path, ending: str) -> None:
    texts = many(400)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    write(tmp_path / "in" / f"a.{ending}", texts[:150])
    write(tmp_path / "in" / f"c.{ending}", texts[150:160], 150)
    write(tmp_path / "in" / "deep" / f"b.{ending}", texts[160:], 160)
    keep = deduplicate(texts).keep
    assert main(["data", "dedup", str(tmp_path / "in"), str(tmp_path / "out"), "--json"]) == 0
    for name, start, end in (("a", 0, 150), ("c", 150, 160), ("deep/b", 160, 400)):
        expected = [text for text, kept in zip(texts[start:end], keep[start:end], strict=True) if kept]
        assert read(tmp_path / "out" / f"{name}.{ending}") == expected
    assert main(["data", "dedup", str(tmp_path / "in"), str(tmp_path / f"one.{ending}")]) == 0
    assert read(tmp_path / f"one.{ending}") == [text for text, kept in zip(texts, keep, strict=True) if kept]


def test_lines_are_written_as_they_stood(tmp_path: Path) -> None:
    lines = ['{"text": "one",  "x": 1.50}', "", '  {"x": [1], "text":"two\\u00e9"}', '{"text":"one"}', '{"y": 3}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert main(["data", "dedup", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]) == 0
    assert (tmp_path / "out.jsonl").read_text() == "\n".join([lines[0], lines[2], lines[4]]) + "\n"


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    write(tmp_path / "in.parquet", ["x"])
    pq.write_table(pq.read_table(tmp_path / "in.parquet").slice(1), tmp_path / "in.parquet")
    for ending in ("jsonl", "parquet"):
        assert main(["data", "dedup", str(tmp_path / f"in.{ending}"), str(tmp_path / f"out.{ending}")]) == 0
        assert labels_of(tmp_path / f"out.{ending}") == []


def test_only_one_run_at_a_time(tmp_path: Path) -> None:
    import fcntl

    write(tmp_path / "in.jsonl", ["a"])
    work_folder(tmp_path / "out.jsonl").mkdir()
    with (work_folder(tmp_path / "out.jsonl") / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run writes to"):
            deduplicate_table(open_table(tmp_path / "in.jsonl", "text"), tmp_path / "out.jsonl", settings(), memory=1)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n\n{"text": 3}\n')
    with pytest.raises(InputError, match="line 3: Expected `str"):
        deduplicate_table(open_table(tmp_path / "in.jsonl", "text"), tmp_path / "out.jsonl", settings(), memory=1)


def killed_runs(tmp_path: Path, texts: list[str], kills: int, seed: int, memory: str) -> None:
    generator = random.Random(seed)
    source, calm, target = tmp_path / "in.parquet", tmp_path / "calm.parquet", tmp_path / "out.parquet"
    write(source, texts)
    deduplicate_table(open_table(source, "text"), calm, settings(threads=1), memory=1 << 26)
    code = (
        "import highrise.data.spill as spill, sys; spill._SYNC_SECONDS = 0.0; from highrise.cli import main; "
        f"sys.exit(main(['data', 'dedup', {str(source)!r}, {str(target)!r}, '--threads', '1', '--memory', {memory!r}]))"
    )
    command = [sys.executable, "-c", code]
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - began
    done = 0
    while done < kills:
        for path in (target, target.with_name(f"{target.name}.clusters.parquet")):
            path.unlink(missing_ok=True)
        while True:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                process.wait(generator.uniform(0.3 * whole, whole))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                done += 1
                assert not target.exists() or target.read_bytes() == calm.read_bytes()
                continue
            assert process.returncode == 0, process.communicate()
            process.communicate()
            break
        assert target.read_bytes() == calm.read_bytes()
        assert labels_of(target) == labels_of(calm)
        assert not work_folder(target).exists()


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """Stopped after each step in turn, without a process of its own: the journal is all that is left."""
    texts = many(1500, 2)
    write(tmp_path / "in.parquet", texts)
    table = open_table(tmp_path / "in.parquet", "text")
    expected = deduplicate(texts)
    from highrise.data import spill

    class StoppedError(Exception):
        pass

    def stop(self: Any) -> None:
        raise StoppedError

    for step in spill._STEPS:
        name = f"_{step}"
        whole = getattr(spill._Run, name)
        try:
            setattr(spill._Run, name, stop)
            with pytest.raises(StoppedError):
                deduplicate_table(table, tmp_path / "out.parquet", settings(), memory=1)
        finally:
            setattr(spill._Run, name, whole)
    deduplicate_table(table, tmp_path / "out.parquet", settings(), memory=1)
    assert labels_of(tmp_path / "out.parquet") == expected.cluster.tolist()


def test_other_settings_start_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = many(200)
    write(tmp_path / "in.jsonl", texts)
    work_folder(tmp_path / "out.jsonl").mkdir()
    (work_folder(tmp_path / "out.jsonl") / "journal.json").write_text("{damaged")
    deduplicate_table(open_table(tmp_path / "in.jsonl", "text"), tmp_path / "out.jsonl", settings(), memory=1)
    assert "starting again" in capsys.readouterr().err
    assert labels_of(tmp_path / "out.jsonl") == deduplicate(texts).cluster.tolist()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_kills_at_random_moments(tmp_path: Path) -> None:
    killed_runs(tmp_path, many(5_000), kills=50, seed=int(np.random.default_rng().integers(1 << 30)), memory="64M")


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]).returncode:
        pytest.skip("no file system of a small size can be mounted here")
    try:
        texts = many(4000)
        write(tmp_path / "in.parquet", texts)
        arguments = ["data", "dedup", str(tmp_path / "in.parquet"), str(disk / "out.parquet")]
        assert main(arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "the disk is full while" in error
        assert not (disk / "out.parquet").exists()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert main(arguments) == 0
        assert labels_of(disk / "out.parquet") == deduplicate(texts).cluster.tolist()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
