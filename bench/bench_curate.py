"""A whole curation, JSON lines to filtered, redacted, de-duplicated Parquet, beside datatrove: same documents, one
process each.

datatrove runs its Gopher quality filter (bounds opened so that code passes), a filter of line lengths and letters like
ours, its PII formatter, MinHash of 16 bands of 8 over word 5-grams and its Parquet writer; ours does that and parses,
tags licences, looks for secrets and scores besides. datatrove stands here twice: as it comes, where spaCy cuts the
words, and ("with words") with `\\w+` in its place, which is what our words are. CPU seconds of fresh processes, imports
included and compiled beforehand. Before a figure counts, every planted copy must be gone and at least 70 % of the rest
be there.
datatrove runs in the environment of the peers (`bench/peers.py`).
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from bench import peers

SMALL, LARGE = 4_000_000, 40_000_000

OURS = """
import sys
from pathlib import Path
from highrise.data.build import build_dataset
from highrise.data.config import DataConfig
build_dataset(DataConfig(sources=(sys.argv[1],)), Path(sys.argv[2]), workers=0)
"""
THEIRS = """
import re
import sys
from pathlib import Path
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
from datatrove.utils.word_tokenizers import WordTokenizer
class Words(WordTokenizer):
    def word_tokenize(self, text):
        return re.findall(r"\\w+", text)
    sent_tokenize = span_tokenize = None
source, out = Path(sys.argv[1]), sys.argv[2]
language = Words() if sys.argv[3] == "words" else "eng"
def code(document):
    text = document.text
    lines = text.split("\\n")
    letters = sum(map(str.isalnum, text))
    return max(map(len, lines)) <= 2000 and len(text) / len(lines) <= 160 and letters >= 0.25 * len(text)
quality = GopherQualityFilter(min_doc_words=1, max_doc_words=10**9, min_avg_word_length=0, max_avg_word_length=10**9,
    max_symbol_word_ratio=10**9, max_bullet_lines_ratio=1, max_ellipsis_lines_ratio=1, max_non_alpha_words_ratio=0,
    min_stop_words=0, language=language)
config = MinhashConfig(num_buckets=16, hashes_per_bucket=8, n_grams=5)
read = JsonlReader(str(source.parent), glob_pattern=source.name, compression=None)
steps = (
    (1, [read, LambdaFilter(code), quality, PIIFormatter(), JsonlWriter(out + "/clean")]),
    (1, [JsonlReader(out + "/clean"), MinhashDedupSignature(out + "/signatures", config, language)]),
    (16, [MinhashDedupBuckets(out + "/signatures", out + "/buckets", config=config)]),
    (1, [MinhashDedupCluster(out + "/buckets", out + "/remove", config=config)]),
    (1, [JsonlReader(out + "/clean"), MinhashDedupFilter(out + "/remove"), ParquetWriter(out + "/shards")]),
)
for number, (tasks, step) in enumerate(steps):
    LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=f"{out}/logs{number}").run()
"""


def _modules() -> Iterator[Path]:
    folders = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).parts
            if not {"site-packages", "test", "tests"} & set(parts):
                yield path


@functools.cache
def corpus(limit: int) -> tuple[Path, float, int]:
    """About `limit` bytes of JSON lines of the standard library, and of installed packages where it ends, in which
    every fourth file stands twice; its megabytes, and the number of copies.
    """
    target = Path(tempfile.mkdtemp(prefix="highrise-bench-")) / "in.jsonl"
    size = number = copies = 0
    with target.open("w") as file:
        for path in _modules():
            if size > limit:
                break
            text = path.read_text("utf-8", "replace")
            if len(text) < 500:
                continue
            for _ in range(1 + (number % 4 == 0)):
                file.write(json.dumps({"text": text, "id": str(number), "path": f"{number}/{path.name}"}) + "\n")
                size += len(text.encode())
                number += 1
            copies += (number - 1) % 4 == 1
    return target, size / 1e6, copies


def children_cpu() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(who: str, source: Path, out: Path) -> None:
    if who == "highrise":
        command = [sys.executable, "-c", OURS, str(source), str(out)]
    else:
        command = [peers.python(), "-c", THEIRS, str(source), str(out), "words" if "words" in who else "as it comes"]
    caches = {"PYTHONPYCACHEPREFIX": str(corpus(SMALL)[0].with_name("bytecode"))}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment | caches)


@pytest.mark.benchmark(timer=children_cpu)
@pytest.mark.parametrize(
    ("who", "limit"),
    [
        *(("highrise", SMALL), ("datatrove", SMALL), ("datatrove with words", SMALL)),
        *(("highrise", LARGE), ("datatrove with words", LARGE)),
    ],
)
def test_curation(benchmark: Any, who: str, limit: int, tmp_path: Path) -> None:
    source, megabytes, num_copies = corpus(limit)
    with source.open() as file:
        lines = file.readlines()
    small = tmp_path / "small.jsonl"
    small.write_text("".join(lines[:3]))
    run(who, small, tmp_path / "compiled")
    benchmark.pedantic(run, args=(who, source, tmp_path / "out"), rounds=1)
    shards = (tmp_path / "out").glob("shards/*.parquet")
    texts = [text for shard in shards for text in pq.read_table(shard).column("text").to_pylist()]
    assert 0.7 * (len(lines) - num_copies) <= len(texts) <= len(lines) - num_copies
    assert len(set(texts)) == len(texts)
    benchmark.extra_info.update(path=f"curation-{limit // 1_000_000}MB", who=who, amount=megabytes, unit="MB")
