"""The batches in which teachers read a split: cut in windows of sentences, so that memory does not grow with it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fairseq_compress.work.windows import WINDOW, cut_batches


class Batch(NamedTuple):
    """One unit of work: sentences that a teacher reads at once."""

    unit: int
    indices: list[int]
    """Of its sentences in the dataset."""
    tokens: list[int]
    """Target tokens of each of them."""
    starts: list[int]
    """Number of each one's first record in the file."""
    read: bool
    """False for a sentence that is longer than the teachers take."""


class BatchPlan:
    """The batches of a split; they depend on the sentence lengths and on nothing else.

    Args:
        source_sizes: (sentences,) tokens of each source.
        target_sizes: (sentences,) tokens of each target.
        longest: the most source and target tokens that the teachers take. What is longer is never trained on (the
            reader sees to that); it makes a batch of its own that no teacher reads.
        max_tokens: the most tokens of a batch on either side, padding counted.
    """

    def __init__(
        self,
        source_sizes: np.ndarray,
        target_sizes: np.ndarray,
        longest: Sequence[int],
        max_tokens: int,
        window: int = WINDOW,
    ) -> None:
        self.source_sizes, self.target_sizes = source_sizes, target_sizes
        self.longest, self.max_tokens, self.window = longest, max_tokens, window

    def __iter__(self) -> Iterator[Batch]:
        unit = written = 0
        for first in range(0, len(self.target_sizes), self.window):
            source, target = (
                sizes[first : first + self.window].astype(np.int64) for sizes in (self.source_sizes, self.target_sizes)
            )
            starts = written + np.cumsum(target) - target
            written += int(target.sum())
            for members, read in self._cut(source, target):
                yield Batch(unit, (first + members).tolist(), target[members].tolist(), starts[members].tolist(), read)
                unit += 1

    def _cut(self, source: np.ndarray, target: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
        fits = (source <= self.longest[0]) & (target <= self.longest[1])
        readable = np.flatnonzero(fits)
        for batch in cut_batches(np.maximum(source, target)[readable].tolist(), self.max_tokens):
            yield readable[batch], True
        for index in np.flatnonzero(~fits):
            yield np.array([index]), False
