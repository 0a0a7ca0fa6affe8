"""Floor 3, building an index: documents to chunks, words and vectors in one folder, or vectors in a store outside.

The folder is a stage of the assistant: what a killed build left in it is used again. Knows nothing of queries.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from highrise.core.catalogue import locate
from highrise.core.config import fingerprint
from highrise.core.cores import usable_cores
from highrise.core.document import Document
from highrise.core.errors import ConfigError, HighriseError, InputError
from highrise.core.files import atomic_write
from highrise.core.json_text import decode_json
from highrise.core.progress import Progress, say
from highrise.encode.adapters.faiss import write_faiss
from highrise.encode.chunk import Chunk, chunk_document
from highrise.encode.chunk_store import ChunkRecord, ChunkStore, write_chunks
from highrise.encode.index_config import IndexConfig
from highrise.encode.lexical import write_lexical
from highrise.encode.minilm import Embedder, Floats, MiniLm
from highrise.encode.nearest import write_row_ids
from highrise.encode.store import EMBEDDED, StoredRow, open_store, read_place
from highrise.encode.store_rows import bring_up_to_date, row_of
from highrise.encode.vectors import Vectors, embed_within_budget, key_of, read_vectors, write_vectors

__all__ = ["INFO_FILE", "IndexInfo", "build_from_documents", "build_index", "passage"]

INFO_FILE = "index.json"

Counts = dict[str, int | float | str]


class IndexInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `index.json` says of an index."""

    num_chunks: int
    num_vectors: int
    embedder: str
    """Name or folder, to be opened again for queries; empty without vectors."""
    max_tokens: int
    weights: str
    """Fingerprint of the embedder: vectors of another are not mixed in."""
    store: str = EMBEDDED
    """Where queries find the vectors: inside the folder, or the address of a store."""


def build_index(
    config: IndexConfig,
    data_folder: Path,
    out: Path,
    progress: Progress | None = None,
    *,
    previous: Path | None = None,
    embedder: Embedder | None = None,
) -> Counts:
    """Index every document of a data folder (train and validation) into `out`; returns the counts.

    `previous` is an older index whose vectors are taken over where the text is the same. `embedder` replaces the one
    that the configuration names, which is fetched through the catalogue when it is not there. Without `progress` it
    tells of the embeddings on a line of its own.
    """
    from highrise.data.shards import read_documents  # brings pyarrow, which a search does not need

    with progress or Progress("embedding", unit="chunks") as shown:
        return build_from_documents(
            config, read_documents(data_folder), out, shown, previous=previous, embedder=embedder
        )


def build_from_documents(
    config: IndexConfig,
    documents: Iterable[Document],
    out: Path,
    progress: Progress | None = None,
    *,
    previous: Path | None = None,
    embedder: Embedder | None = None,
) -> Counts:
    """`build_index` over documents from anywhere; the same documents in the same order continue a killed build."""
    counts: Counts = {"documents": 0}

    def cut() -> Iterator[Chunk]:
        for number, document in enumerate(documents, 1):
            counts["documents"] = number
            yield from chunk_document(document, max_lines=config.chunk_lines)

    threads = config.threads or usable_cores()
    counts["chunks"] = write_chunks(out / "chunks", cut())
    store = ChunkStore(out / "chunks")
    counts |= write_lexical(out / "lexical", (_words(store, number) for number in range(len(store))))
    num_own = sum(record.own for record in store.records)
    counts["chunks_own"] = num_own
    keys = [key_of(passage(record, store.text(number))) for number, record in enumerate(store.records)]
    weights = ""
    vectors = None
    if config.budget_seconds > 0 and len(store):
        if embedder is None:
            embedder = _open_embedder(config, threads)
        weights = fingerprint(embedder.name, config.max_tokens, _probe(embedder))
        vectors = _embed(config, store, keys, out, progress, _vectors_of(previous, weights), embedder)
    chunk_of_row, row_of_chunk = _match(keys, vectors)
    embedded_own = sum(store.records[number].own for number in chunk_of_row)
    counts |= {
        "embedded": len(chunk_of_row),
        "embedded_own": embedded_own,
        "lexical_only": len(store) - len(chunk_of_row),
        "lexical_only_own": num_own - embedded_own,
        "reused_vectors": vectors.num_reused if vectors else 0,
        "embedding_seconds": round(vectors.seconds, 1) if vectors else 0.0,
        "vector_index": "none",
    }
    if vectors is not None and chunk_of_row:
        write_vectors(out / "vectors", vectors)
        with atomic_write(out / "vectors" / "chunks.npy") as file:
            np.save(file, np.array(chunk_of_row, np.int64))
        values = vectors.values[row_of_chunk]
        if config.store == EMBEDDED:
            counts["vector_index"] = write_faiss(
                out / "vectors" / "index.faiss",
                values,
                flat_up_to=config.flat_vectors,
                graph_up_to=config.graph_vectors,
                threads=threads,
            )
        else:
            rows = [row_of(store.records[number], keys[number], weights) for number in chunk_of_row]
            write_row_ids(out / "vectors", [row.id for row in rows])
            counts |= _send(config, rows, values, known=_is_store_of(previous, config.store))
    info = IndexInfo(
        num_chunks=len(store),
        num_vectors=len(chunk_of_row),
        embedder=config.embedder if chunk_of_row else "",
        max_tokens=config.max_tokens,
        weights=weights,
        store=config.store,
    )
    with atomic_write(out / INFO_FILE) as file:
        file.write(msgspec.json.format(msgspec.json.encode(info), indent=2))
    shutil.rmtree(out / "blocks", ignore_errors=True)
    return counts


def _send(config: IndexConfig, rows: list[StoredRow], values: Floats, *, known: bool) -> Counts:
    """Bring the configured store to hold `rows`."""
    place = read_place(config.store)
    store = open_store(config.store, dimension=values.shape[1], create=True)
    try:
        with Progress(f"sending to {place.kind}", unit="rows") as sending:
            exchange = bring_up_to_date(store, rows, values, known=known, advance=sending.advance)
    finally:
        store.close()
    return {
        "vector_index": place.kind,
        "sent": exchange.num_sent,
        "removed": exchange.num_removed,
        "unchanged": exchange.num_kept,
    }


def _is_store_of(previous: Path | None, store: str) -> bool:
    """Whether an older index kept its vectors in `store` too."""
    if previous is None:
        return False
    try:
        return decode_json((previous / INFO_FILE).read_bytes(), IndexInfo).store == store
    except (OSError, msgspec.MsgspecError):
        return False


def passage(record: ChunkRecord, text: str) -> str:
    """What of a chunk is embedded: where it stands, then the text."""
    return f"{record.path} {record.symbol}\n{text}"


def _words(store: ChunkStore, number: int) -> str:
    """What of a chunk is indexed by words: its name counts more than a mention of it."""
    record = store.records[number]
    return f"{record.path} {record.symbol} {record.symbol}\n{store.text(number)}"


def _open_embedder(config: IndexConfig, threads: int) -> Embedder:
    try:
        folder = locate(config.embedder, download=True, say=say)
    except HighriseError as error:
        raise ConfigError(
            f'the embedder of the index is not to be had ({error}); index.budget = "0 s" builds one without vectors'
        ) from error
    return MiniLm.load(folder, name=config.embedder, max_tokens=config.max_tokens, threads=threads)


def _probe(embedder: Embedder) -> list[float]:
    """Two digits of one embedding: enough to tell models apart, blind to the last bits in which machines differ."""
    return [round(float(value), 2) + 0.0 for value in embedder.embed(["def probe(): return 1"])[0]]


def _embed(
    config: IndexConfig,
    store: ChunkStore,
    keys: list[bytes],
    out: Path,
    progress: Progress | None,
    earlier: Vectors | None,
    embedder: Embedder,
) -> Vectors:
    """Own chunks first, those with a name before the others, and spread over the sources when time runs out."""

    def advance(count: int, seconds: float) -> None:
        if progress is not None:
            progress.advance(count, note=f"{seconds:.0f} s of {config.budget}")

    order = sorted(
        range(len(store)),
        key=lambda number: (not store.records[number].own, not store.records[number].symbol, keys[number]),
    )
    return embed_within_budget(
        embedder,
        [keys[number] for number in order],
        lambda index: passage(store.records[order[index]], store.text(order[index])),
        budget=config.budget_seconds,
        folder=out / "blocks",
        earlier=earlier,
        advance=advance,
    )


def _match(keys: list[bytes], vectors: Vectors | None) -> tuple[list[int], list[int]]:
    """Numbers of the chunks that have a vector, and the row of each."""
    rows = {} if vectors is None else {key: row for row, key in enumerate(vectors.keys)}
    numbers = [number for number, key in enumerate(keys) if key in rows]
    return numbers, [rows[keys[number]] for number in numbers]


def _vectors_of(previous: Path | None, weights: str) -> Vectors | None:
    """Vectors of an older index of the same model; a damaged one is what this build is there to replace."""
    if previous is None or not (previous / INFO_FILE).exists():
        return None
    try:
        info = decode_json((previous / INFO_FILE).read_bytes(), IndexInfo)
        return read_vectors(previous / "vectors") if info.num_vectors and info.weights == weights else None
    except (msgspec.MsgspecError, InputError) as error:
        print(f"the vectors of {previous} are not taken over: {error}", file=sys.stderr)
        return None
