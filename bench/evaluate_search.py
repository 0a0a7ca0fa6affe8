"""How often a search finds a function by the first sentence of its documentation, which the index does not hold.

Sources: the standard library of this Python, and this repository's own package; each function's docstring is cut out of
the text before it is indexed, and kept as the query. Prints hits at 1 and 10 and the mean reciprocal rank by words, by
meaning, and fused; fused also with half and a tenth of the vectors. Run: python bench/evaluate_search.py
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from highrise.core.catalogue import locate
from highrise.core.document import Document
from highrise.encode.adapters.faiss import write_faiss
from highrise.encode.chunk import chunk_document
from highrise.encode.chunk_store import ChunkStore
from highrise.encode.index import IndexConfig, SearchIndex
from highrise.encode.index_build import INFO_FILE, IndexInfo, build_from_documents, passage
from highrise.encode.minilm import MiniLm
from highrise.encode.vectors import key_of, read_vectors

Question = tuple[str, str, int]  # the sentence, the path, the line of the `def` once docstrings are gone


def questions_of(path: str, text: str) -> tuple[str, list[Question]]:
    """The text without docstrings of functions, and a question for each function that had one."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    cut: set[int] = set()
    asked: list[tuple[str, int]] = []
    for node in functions:
        documentation = ast.get_docstring(node)
        if not documentation or len(node.body) < 2 or (node.end_lineno or 0) - node.lineno < 5:
            continue
        first = node.body[0]
        cut.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
        sentence = " ".join(documentation.split("\n\n")[0].split()).split(". ")[0]
        if len(sentence.split()) >= 4:
            asked.append((sentence, node.lineno))
    lines = text.split("\n")
    kept = "\n".join(line for number, line in enumerate(lines, 1) if number not in cut)
    return kept, [(sentence, path, line - sum(gone < line for gone in cut)) for sentence, line in asked]


def corpus(root: Path, patterns: Sequence[str]) -> Iterator[tuple[Document, list[Question]]]:
    for file in sorted({file for pattern in patterns for file in root.glob(pattern)}):
        path = str(file.relative_to(root))
        text, asked = questions_of(path, file.read_text(errors="replace"))
        yield (
            Document(
                text=text, path=path, source=str(root.name), repository=root.name, language="python", license="unknown",
                sha256="", quality=1.0, own=True, split="train",
            ),
            asked,
        )  # fmt: skip


def score(index: SearchIndex, questions: Sequence[Question], mode: str) -> tuple[float, float, float, float]:
    """Hits at 1, hits at 10, mean reciprocal rank (of 10), milliseconds a search."""
    first = ten = reciprocal = 0.0
    started = time.perf_counter()
    for sentence, path, line in questions:
        hits = index.search(sentence, limit=10, mode=mode)  # type: ignore[arg-type]
        rank = next(
            (i for i, hit in enumerate(hits, 1) if hit.path == path and hit.start_line <= line <= hit.end_line), 0
        )
        first += rank == 1
        ten += rank > 0
        reciprocal += 1 / rank if rank else 0
    count = len(questions)
    return first / count, ten / count, reciprocal / count, (time.perf_counter() - started) / count * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", type=int, default=400, help="questions asked of each corpus")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    model = MiniLm.load(locate("minilm-l6"), threads=arguments.threads)
    here = Path(__file__).parents[1] / "python"
    library = Path(sysconfig.get_path("stdlib"))
    print(
        "| corpus | chunks | embedded | ranked by | hit@1 | hit@10 | MRR@10 | ms |\n|---|---|---|---|---|---|---|---|"
    )
    for name, root, patterns in (
        ("own package", here, ["**/*.py"]),
        ("standard library", library, ["[a-j]*.py", "json/*.py", "http/*.py"]),
    ):
        pairs = list(corpus(root, patterns))
        questions = [question for _, asked in pairs for question in asked]
        random.Random(0).shuffle(questions)
        questions = questions[: arguments.functions]
        documents = [document for document, _ in pairs]
        num_chunks = sum(len(chunk_document(document)) for document in documents)
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole"
            config = IndexConfig(budget="10000 s", threads=arguments.threads)
            build_from_documents(config, documents, whole, embedder=model)
            show(name, SearchIndex.open(whole, embedder=model), questions, ("lexical", "vector", "fused"))
            for share in (0.5, 0.1):
                part = Path(folder) / str(share)
                keep_part(whole, part, round(num_chunks * share))
                show(name, SearchIndex.open(part, embedder=model), questions, ("fused",))


def show(name: str, index: SearchIndex, questions: Sequence[Question], modes: Sequence[str]) -> None:
    for mode in modes:
        first, ten, reciprocal, milliseconds = score(index, questions, mode)
        about = f"{name} | {len(index)} | {index.info.num_vectors} | {mode}"
        print(f"| {about} | {first:.3f} | {ten:.3f} | {reciprocal:.3f} | {milliseconds:.1f} |", flush=True)


def keep_part(whole: Path, part: Path, count: int) -> None:
    """A copy of an index with `count` of its vectors, drawn by lot: what a short time budget leaves."""
    shutil.copytree(whole, part)
    chunks = np.load(whole / "vectors" / "chunks.npy")
    vectors = read_vectors(whole / "vectors")
    row = {key: number for number, key in enumerate(vectors.keys)}
    store = ChunkStore(whole / "chunks")
    kept = np.sort(np.random.default_rng(0).permutation(len(chunks))[:count])
    rows = [row[key_of(passage(store.records[number], store.text(number)))] for number in chunks[kept].tolist()]
    np.save(part / "vectors" / "chunks.npy", chunks[kept])
    write_faiss(part / "vectors" / "index.faiss", vectors.values[rows], flat_up_to=10**9, threads=1)
    info = msgspec.json.decode((whole / INFO_FILE).read_bytes(), type=IndexInfo)
    (part / INFO_FILE).write_bytes(msgspec.json.encode(msgspec.structs.replace(info, num_vectors=count)))


if __name__ == "__main__":
    main()
