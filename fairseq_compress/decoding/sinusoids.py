"""Sinusoidal positions (arXiv:1706.03762), without torch."""

import numpy as np
from numpy.typing import NDArray


def sinusoids(count: int, width: int, first: int = 2) -> NDArray[np.float32]:
    """fairseq's: sines in the first half, cosines in the second; the first token is at 2, behind padding's 1."""
    half = width // 2
    steps = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10000) / max(half - 1, 1)))
    angles = np.arange(first, count + first, dtype=np.float32)[:, None] * steps
    table = np.zeros((count, width), np.float32)
    table[:, :half], table[:, half : 2 * half] = np.sin(angles), np.cos(angles)
    return table
