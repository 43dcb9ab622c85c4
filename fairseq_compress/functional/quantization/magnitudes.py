"""Percentiles of the magnitudes of a stream of tensors, in constant memory."""

import math

import torch
from torch import Tensor

BINS = 2**13


class Magnitudes:
    r"""A histogram of :math:`|x|` from 0 to an upper end that doubles when a value exceeds it.

    The p-th percentile (arXiv:2004.09602, section 3.2) is the least edge of a bin with at least p percent of all values
    at or below it: at most a bin's width, 2 · max \|x\| / 8,192, above the true one, and never above max \|x\|.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self._top = 0.0
        self._counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Count the values of a tensor of any shape."""
        if x.numel() == 0:
            return
        magnitudes = x.abs().float().flatten()
        largest = magnitudes.max().item()
        if not math.isfinite(largest):
            raise ValueError(f"must be finite, got {largest}")
        self.largest = max(self.largest, largest)
        if self._top == 0:  # only zeros so far: they are in the first bin, whatever its width
            self._top = largest
        while self._top < largest:
            self._counts = torch.cat([self._counts.view(-1, 2).sum(1), self._counts.new_zeros(BINS // 2)])
            self._top *= 2
        if self._top == 0:
            self._counts[0] += len(magnitudes)
        else:
            self._counts += torch.histc(magnitudes.cpu(), BINS, 0.0, self._top)

    def percentile(self, percent: float) -> float:
        """The magnitude that ``percent`` of all values do not exceed; of 100 the largest, exactly."""
        if percent == 100:
            return self.largest
        reached = self._counts.cumsum(0) >= self._counts.sum() * percent / 100
        edge = (int(reached.int().argmax()) + 1) * self._top / BINS
        return min(edge, self.largest)
