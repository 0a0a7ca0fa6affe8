//! Floor 2, data: near-duplicate detection from UTF-8 bytes to clusters. Knows nothing of Python or files.
