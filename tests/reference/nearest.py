"""Nearest vectors by looking at every one."""

from __future__ import annotations

import numpy as np


def nearest(values: np.ndarray, query: np.ndarray, limit: int, *, allowed: np.ndarray | None = None) -> list[int]:
    """Rows with the largest inner product, largest first, only those that `allowed` marks."""
    rows = [row for row in range(len(values)) if allowed is None or allowed[row]]
    return sorted(rows, key=lambda row: -float(values[row] @ query))[:limit]
