"""Floor 3, configuration of the search index."""

from __future__ import annotations

from highrise.core.config import Config, parse_duration
from highrise.core.errors import ConfigError
from highrise.encode.store import EMBEDDED, read_place

__all__ = ["IndexConfig"]


class IndexConfig(Config, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How sources become a search index."""

    enabled: bool = True
    budget: str = "60 s"
    """Time for embeddings, own sources first; what is left over is found by its words alone. "0 s" embeds nothing."""
    embedder: str = "minilm-l6"
    """A name of the model catalogue or a folder of the same shape."""
    max_tokens: int = 128
    """Where a chunk is cut before it is embedded; MiniLM was trained on 128."""
    chunk_lines: int = 60
    """A definition of at most so many lines stays one chunk."""
    flat_vectors: int = 20_000
    """Up to so many vectors the search looks at every one; above, at an HNSW graph."""
    graph_vectors: int = 100_000
    """Up to so many vectors there is a graph; above, lists of product-quantised codes, which are built much faster."""
    store: str = EMBEDDED
    """Where vectors lie: "faiss" in the index folder, or the address of pgvector, Milvus, Pinecone or Azure AI Search
    (docs/floors/3-encode-search.md). Keys and passwords come from environment variables only.
    """
    threads: int | None = None
    """Threads while the index is built; every core of the process when absent."""

    def __post_init__(self) -> None:
        parse_duration(self.budget, where="index.budget")
        for name, value, least in (
            ("max_tokens", self.max_tokens, 3),
            ("chunk_lines", self.chunk_lines, 1),
            ("flat_vectors", self.flat_vectors, 0),
            ("graph_vectors", self.graph_vectors, 0),
            ("threads", 1 if self.threads is None else self.threads, 1),
        ):
            if value < least:
                raise ConfigError(f"index.{name} is {value}; it must be at least {least}")
        if self.store != EMBEDDED:
            read_place(self.store)

    @property
    def budget_seconds(self) -> float:
        """`budget` in seconds."""
        return parse_duration(self.budget, where="index.budget")
