"""AWQ and GPTQ matrices, slow and obvious: one weight at a time, written and read back as their tools lay them out."""

from __future__ import annotations

import numpy as np

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""AutoAWQ: nibble i of a word holds column AWQ_ORDER[i] of its eight."""


def pack_awq(codes_IO: np.ndarray) -> np.ndarray:
    """Codes (inputs, outputs), 0 to 15 -> int32 (inputs, outputs / 8)."""
    inputs, outputs = codes_IO.shape
    words = np.zeros((inputs, outputs // 8), np.uint32)
    for row in range(inputs):
        for word in range(outputs // 8):
            for nibble, column in enumerate(AWQ_ORDER):
                words[row, word] |= np.uint32(int(codes_IO[row, 8 * word + column]) << (4 * nibble))
    return words.view(np.int32)


def pack_gptq_codes(codes_IO: np.ndarray) -> np.ndarray:
    """Codes (inputs, outputs) -> int32 (inputs / 8, outputs): eight inputs of one output in a word."""
    inputs, outputs = codes_IO.shape
    words = np.zeros((inputs // 8, outputs), np.uint32)
    for row in range(inputs):
        for column in range(outputs):
            words[row // 8, column] |= np.uint32(int(codes_IO[row, column]) << (4 * (row % 8)))
    return words.view(np.int32)


def pack_gptq_zeros(zeros_GO: np.ndarray) -> np.ndarray:
    """Zeros (groups, outputs) as they are stored -> int32 (groups, outputs / 8)."""
    groups, outputs = zeros_GO.shape
    words = np.zeros((groups, outputs // 8), np.uint32)
    for group in range(groups):
        for column in range(outputs):
            words[group, column // 8] |= np.uint32(int(zeros_GO[group, column]) << (4 * (column % 8)))
    return words.view(np.int32)


def weights(codes_IO: np.ndarray, zeros_GO: np.ndarray, scales_GO: np.ndarray, group_of_I: np.ndarray) -> np.ndarray:
    """float32 (outputs, inputs)."""
    inputs, outputs = codes_IO.shape
    out = np.zeros((outputs, inputs), np.float32)
    for row in range(inputs):
        for column in range(outputs):
            group = group_of_I[row]
            difference = int(codes_IO[row, column]) - int(zeros_GO[group, column])
            out[column, row] = np.float32(scales_GO[group, column]) * np.float32(difference)
    return out
