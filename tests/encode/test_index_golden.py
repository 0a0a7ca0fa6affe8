"""What stands in an index of the sources of `test_index` must not change unseen: chunks, terms, BM25 scores.

After a wanted change: python -m tests.encode.test_index_golden writes the file anew.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from highrise.encode.chunk import chunk_document
from highrise.encode.lexical import LexicalIndex, terms, write_lexical
from tests.encode.test_chunk import PYTHON, document
from tests.encode.test_index import sources

GOLDEN = Path(__file__).parents[1] / "golden" / "search_index.json"
QUERIES = ["average", "open path on disk", "socketRequestPort", "keeps things"]


def compute() -> dict[str, object]:
    documents = [*sources(), document(PYTHON)]
    chunks = [chunk for item in documents for chunk in chunk_document(item, max_lines=10)]
    with tempfile.TemporaryDirectory() as folder:
        write_lexical(Path(folder), (chunk.text for chunk in chunks))
        index = LexicalIndex(Path(folder), len(chunks))
        scores = {query: [round(float(score), 3) for score in index.scores(query)] for query in QUERIES}
    return {
        "chunks": [[chunk.path, chunk.start_line, chunk.end_line, chunk.symbol] for chunk in chunks],
        "terms": {text: terms(text) for text in ("parseJSONFiles", "__init__", "read_csv 3x", "Größe")},
        "scores": scores,
    }


def test_the_index_is_the_golden_one() -> None:
    golden, now = json.loads(GOLDEN.read_text()), compute()
    assert now["chunks"] == golden["chunks"]
    assert now["terms"] == golden["terms"]
    for query in QUERIES:
        np.testing.assert_allclose(now["scores"][query], golden["scores"][query], atol=2e-3)  # type: ignore[index]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(compute(), indent=1, ensure_ascii=False) + "\n")
