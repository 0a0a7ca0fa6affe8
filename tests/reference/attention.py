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
    kv: str,
) -> NDArray[np.uint8]:
    """Bytes of `num_pages` pages of one head: keys as [page_size / 16][D][16], then values as [page_size][D].

    With `kv` "int8" these are codes, and half-precision scales of each 32 dimensions follow, of the keys and then of
    the values, as [page_size / 16][G][16].
    """
    if kv == "int8":
        return _pack_codes(k_SD, v_SD, table, num_pages, page_size)
    element = np.float16 if kv == "float16" else np.float32
    length, dim = k_SD.shape
    pages = np.zeros((num_pages, 2 * page_size * dim), element)
    for position in range(length):
        page, slot = table[position // page_size], position % page_size
        keys = pages[page, : page_size * dim].reshape(page_size // 16, dim, 16)
        values = pages[page, page_size * dim :].reshape(page_size, dim)
        keys[slot // 16, :, slot % 16] = k_SD[position]
        values[slot] = v_SD[position]
    return np.ascontiguousarray(pages).view(np.uint8)


def codes_of(x_SD: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Codes of 8 bits and a scale for each 32 dimensions of each row, the last group maybe shorter."""
    groups = -(-x_SD.shape[1] // 32)
    codes = np.zeros(x_SD.shape, np.int8)
    scales = np.zeros((len(x_SD), groups), np.float16)
    for row, x_D in enumerate(x_SD):
        for group in range(groups):
            part = slice(32 * group, 32 * group + 32)
            scales[row, group] = np.abs(x_D[part]).max() / np.float32(127)
            if scales[row, group] > 0:
                codes[row, part] = np.clip(np.rint(x_D[part] / np.float32(scales[row, group])), -127, 127)
    return codes, scales


def rounded(x_SD: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left of the rows at 8 bits."""
    codes, scales = codes_of(x_SD)
    return codes * np.repeat(scales.astype(np.float32), 32, axis=1)[:, : x_SD.shape[1]]


def _pack_codes(
    k_SD: NDArray[np.float32], v_SD: NDArray[np.float32], table: NDArray[np.int32], num_pages: int, page_size: int
) -> NDArray[np.uint8]:
    (length, dim), groups = k_SD.shape, -(-k_SD.shape[1] // 32)
    pages = np.zeros((num_pages, 2 * page_size * (dim + 2 * groups)), np.uint8)
    key_codes, key_scales = codes_of(k_SD)
    value_codes, value_scales = codes_of(v_SD)
    for position in range(length):
        page, slot = pages[table[position // page_size]], position % page_size
        codes, scales = page[: 2 * page_size * dim].view(np.int8), page[2 * page_size * dim :].view(np.float16)
        codes[: page_size * dim].reshape(page_size // 16, dim, 16)[slot // 16, :, slot % 16] = key_codes[position]
        codes[page_size * dim :].reshape(page_size, dim)[slot] = value_codes[position]
        of_keys, of_values = scales.reshape(2, page_size // 16, groups, 16)
        of_keys[slot // 16, :, slot % 16] = key_scales[position]
        of_values[slot // 16, :, slot % 16] = value_scales[position]
    return pages


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
