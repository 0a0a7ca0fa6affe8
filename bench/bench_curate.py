"""A whole curation, JSON lines to filtered, redacted, de-duplicated Parquet, beside datatrove: same documents, one
process each.

datatrove runs its Gopher quality filter (bounds opened so that code passes), a filter of line lengths and letters like
ours, its PII formatter, MinHash of 16 bands of 8 over word 5-grams and its Parquet writer; ours does that and parses,
tags licences, looks for secrets and scores besides. CPU seconds of fresh processes, imports included. Before a figure
counts, every planted copy must be gone and at least 70 % of the rest be there. Without datatrove (it is in no group of
the lock) the peer is skipped.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import resource
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

LIMIT = 4_000_000

OURS = """
import sys
from pathlib import Path
from highrise.data.build import build_dataset
from highrise.data.config import DataConfig
build_dataset(DataConfig(sources=(sys.argv[1],)), Path(sys.argv[2]), workers=0)
"""
THEIRS = """
import sys
from pathlib import Path
import xxhash
digest = xxhash.xxh64_intdigest  # newer versions take no str, which datatrove gives it
xxhash.xxh64_intdigest = lambda data: digest(data.encode() if isinstance(data, str) else data)
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import GopherQualityFilter, LambdaFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
source, out = Path(sys.argv[1]), sys.argv[2]
def code(document):
    text = document.text
    lines = text.split("\\n")
    letters = sum(map(str.isalnum, text))
    return max(map(len, lines)) <= 2000 and len(text) / len(lines) <= 160 and letters >= 0.25 * len(text)
quality = GopherQualityFilter(min_doc_words=1, max_doc_words=10**9, min_avg_word_length=0, max_avg_word_length=10**9,
    max_symbol_word_ratio=10**9, max_bullet_lines_ratio=1, max_ellipsis_lines_ratio=1, max_non_alpha_words_ratio=0,
    min_stop_words=0)
config = MinhashConfig(num_buckets=16, hashes_per_bucket=8, n_grams=5)
read = JsonlReader(str(source.parent), glob_pattern=source.name, compression=None)
steps = (
    (1, [read, LambdaFilter(code), quality, PIIFormatter(), JsonlWriter(out + "/clean")]),
    (1, [JsonlReader(out + "/clean"), MinhashDedupSignature(out + "/signatures", config=config)]),
    (16, [MinhashDedupBuckets(out + "/signatures", out + "/buckets", config=config)]),
    (1, [MinhashDedupCluster(out + "/buckets", out + "/remove", config=config)]),
    (1, [JsonlReader(out + "/clean"), MinhashDedupFilter(out + "/remove"), ParquetWriter(out + "/shards")]),
)
for number, (tasks, step) in enumerate(steps):
    LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=f"{out}/logs{number}").run()
"""


@functools.cache
def corpus() -> tuple[Path, float, int]:
    """JSON lines of the standard library in which every fourth file stands twice, its megabytes, and the number of
    copies.
    """
    target = Path(tempfile.mkdtemp(prefix="highrise-bench-")) / "in.jsonl"
    size = number = copies = 0
    with target.open("w") as file:
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
            if "site-packages" in path.parts or "test" in path.parts or size > LIMIT:
                continue
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


def run(script: str, out: str) -> None:
    subprocess.run([sys.executable, "-c", script, str(corpus()[0]), out], check=True, capture_output=True)


@pytest.mark.benchmark(timer=children_cpu)
@pytest.mark.parametrize("who", ["highrise", "datatrove"])
def test_curation(benchmark: Any, who: str, tmp_path: Path) -> None:
    if who == "datatrove" and importlib.util.find_spec("datatrove") is None:
        pytest.skip("datatrove is not installed")
    source, megabytes, num_copies = corpus()
    benchmark.pedantic(run, args=(OURS if who == "highrise" else THEIRS, str(tmp_path)), rounds=1)
    texts = [t for shard in tmp_path.glob("shards/*.parquet") for t in pq.read_table(shard).column("text").to_pylist()]
    with source.open() as file:
        num_texts = sum(1 for _ in file)
    assert 0.7 * (num_texts - num_copies) <= len(texts) <= num_texts - num_copies
    assert len(set(texts)) == len(texts)
    benchmark.extra_info.update(path="curation", who=who, amount=megabytes, unit="MB")
