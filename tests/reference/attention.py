"""Attention over pages, slow and obvious: gather every visible key and value, then a plain softmax in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_pages(
    k_SD: NDArray[np.float32],
    v_SD: NDArray[np.float32],
    table: NDArray[np.int32],
    num_pages: int,
    page_size: int,
    half: bool,
) -> NDArray[np.uint8]:
    """Bytes of `num_pages` pages of one head: keys as [page_size / 16][D][16], then values as [page_size][D]."""
    element = np.float16 if half else np.float32
    length, dim = k_SD.shape
    pages = np.zeros((num_pages, 2 * page_size * dim), element)
    for position in range(length):
        page, slot = table[position // page_size], position % page_size
        keys = pages[page, : page_size * dim].reshape(page_size // 16, dim, 16)
        values = pages[page, page_size * dim :].reshape(page_size, dim)
        keys[slot // 16, :, slot % 16] = k_SD[position]
        values[slot] = v_SD[position]
    return np.ascontiguousarray(pages).view(np.uint8)


def attend(
    q_RD: NDArray[np.float32], visible_R: NDArray[np.int32], k_SD: NDArray[np.float32], v_SD: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Each query row over its first `visible` keys; the queries are already scaled."""
    out = np.zeros(q_RD.shape)
    for row, visible in enumerate(visible_R):
        scores = k_SD[:visible].astype(np.float64) @ q_RD[row].astype(np.float64)
        weights = np.exp(scores - scores.max())
        out[row] = weights / weights.sum() @ v_SD[:visible].astype(np.float64)
    return out
