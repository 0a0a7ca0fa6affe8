"""Floor 3, encode. In: text. Out: token ids, packed token files, embeddings, a search index."""
