//! Floor 3, encode: exact byte-level BPE, encoding and training. Knows nothing of Python or prompts.
