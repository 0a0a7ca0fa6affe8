//! Floor 6, serve: which page of the KV cache holds which tokens. Knows nothing of tensors, models or Python.
