"""The parts of a search beside their peers, same texts, one thread: BM25 (bm25s, rank_bm25), WordPiece (tokenizers) and
MiniLM (transformers on torch, CPU).

Equality comes first: bm25s gives our scores but for a constant factor, tokenizers our ids, transformers our vectors.
rank_bm25 has another idf, so only that it finds much the same is asserted. A peer that is not installed is skipped.
"""

from __future__ import annotations

import functools
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from highrise.core.catalogue import locate
from highrise.core.document import Document
from highrise.core.errors import HighriseError
from highrise.encode.chunk import chunk_document
from highrise.encode.lexical import K1, B, LexicalIndex, terms, write_lexical
from highrise.encode.minilm import MiniLm
from highrise.encode.wordpiece import WordPiece

QUERIES = [
    "read a text file line by line",
    "acquire the lock of a thread",
    "parse command line arguments",
    "send an HTTP request with headers",
    "json_decode error position",
    "temporary directory that removes itself",
    "compute the mean of numbers",
    "HTTPServer",
]
NUM_EMBEDDED = 48
TOKENS = 128


@functools.cache
def chunks() -> list[str]:
    """The chunks of the standard library's modules, about 3 MB."""
    result: list[str] = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-m]*.py")):
        document = Document(
            text=path.read_text("utf-8", "replace"), path=path.name, source="", repository="", language="python",
            license="", sha256="", quality=1.0, own=True, split="train",
        )  # fmt: skip
        result.extend(chunk.text for chunk in chunk_document(document))
    return result


def megabytes() -> float:
    return sum(len(text.encode()) for text in chunks()) / 1e6


def weights() -> Path:
    try:
        return locate("minilm-l6")
    except HighriseError as error:
        pytest.skip(str(error))


@functools.cache
def scorer(who: str) -> Callable[[str], np.ndarray]:
    """Query to the scores of all chunks."""
    if who == "highrise":
        folder = Path(tempfile.mkdtemp())
        write_lexical(folder, chunks())
        return LexicalIndex(folder, len(chunks())).scores
    tokens = [terms(text) for text in chunks()]
    if who == "bm25s":
        bm25s = pytest.importorskip("bm25s")
        index = bm25s.BM25(method="lucene", k1=K1, b=B)
        index.index(tokens, show_progress=False)
        return lambda query: index.get_scores(terms(query))
    okapi = pytest.importorskip("rank_bm25").BM25Okapi(tokens, k1=K1, b=B)
    return lambda query: okapi.get_scores(terms(query))


@pytest.mark.parametrize("who", ["highrise", "bm25s", "rank_bm25"])
def test_bm25_queries(benchmark: Any, who: str) -> None:
    search = scorer(who)
    ours = scorer("highrise")
    for query in QUERIES:
        if who == "bm25s":
            np.testing.assert_allclose(search(query) * (K1 + 1), ours(query), rtol=1e-4, atol=1e-5)
        else:
            best = [set(np.argsort(-scores)[:20].tolist()) for scores in (search(query), ours(query))]
            assert len(best[0] & best[1]) >= 10
    benchmark.pedantic(lambda: [search(query) for query in QUERIES], rounds=5, iterations=4, warmup_rounds=1)
    benchmark.extra_info.update({"path": "bm25-query", "who": who, "amount": len(QUERIES), "unit": "queries"})


@pytest.mark.parametrize("who", ["highrise", "bm25s"])
def test_bm25_index(benchmark: Any, who: str, tmp_path: Path) -> None:
    """Text to a searchable index; both cut words with our `terms`."""
    if who == "highrise":
        benchmark.pedantic(lambda: write_lexical(tmp_path, chunks()), rounds=2)
    else:
        bm25s = pytest.importorskip("bm25s")

        def build() -> None:
            index = bm25s.BM25(method="lucene", k1=K1, b=B)
            index.index([terms(text) for text in chunks()], show_progress=False)
            index.save(str(tmp_path), show_progress=False)

        benchmark.pedantic(build, rounds=2)
    benchmark.extra_info.update({"path": "bm25-index", "who": who, "amount": megabytes(), "unit": "MB"})


@pytest.mark.parametrize("who", ["highrise", "tokenizers"])
def test_wordpiece(benchmark: Any, who: str) -> None:
    """Fresh tokenisers: no word is remembered from an earlier round."""
    path = weights() / "tokenizer.json"
    texts = chunks()
    reference = pytest.importorskip("tokenizers").Tokenizer.from_file(str(path))
    reference.no_padding()
    reference.no_truncation()
    assert WordPiece.from_file(path).encode_batch(texts[:500]) == [reference.encode(text).ids for text in texts[:500]]
    if who == "highrise":
        benchmark.pedantic(
            lambda ours: ours.encode_batch(texts), setup=lambda: ((WordPiece.from_file(path),), {}), rounds=3
        )
    else:
        benchmark.pedantic(lambda: [reference.encode(text).ids for text in texts], rounds=2)
    benchmark.extra_info.update({"path": "wordpiece", "who": who, "amount": megabytes(), "unit": "MB"})


@pytest.mark.parametrize("who", ["highrise", "transformers"])
def test_minilm(benchmark: Any, who: str) -> None:
    """Code chunks of up to 128 tokens, in batches by length, one thread."""
    folder = weights()
    texts = chunks()[:: len(chunks()) // NUM_EMBEDDED][:NUM_EMBEDDED]
    ours = MiniLm.load(folder, max_tokens=TOKENS, threads=1)
    if who == "highrise":
        benchmark.pedantic(lambda: ours.embed(texts), rounds=3, warmup_rounds=1)
    else:
        torch = pytest.importorskip("torch")
        model = pytest.importorskip("transformers").BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        reference = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
        reference.enable_truncation(TOKENS)
        reference.enable_padding()
        torch.set_num_threads(1)

        def embed() -> np.ndarray:
            result = np.empty((len(texts), 384), np.float32)
            order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
            for start in range(0, len(order), 8):
                batch = order[start : start + 8]
                encoded = reference.encode_batch([texts[index] for index in batch])
                mask = torch.tensor([item.attention_mask for item in encoded])
                with torch.no_grad():
                    hidden = model(torch.tensor([item.ids for item in encoded]), attention_mask=mask).last_hidden_state
                    pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
                    result[batch] = torch.nn.functional.normalize(pooled, dim=1).numpy()
            return result

        assert (embed() * ours.embed(texts)).sum(1).min() > 0.9999
        benchmark.pedantic(embed, rounds=3)
    benchmark.extra_info.update({"path": "minilm", "who": who, "amount": len(texts), "unit": "texts"})
