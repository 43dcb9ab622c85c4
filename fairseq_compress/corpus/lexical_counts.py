"""Lexical translation probabilities p(t | s) = c(s, t) / c(s), c(s, t) the number of links between tokens s and t."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
WAITING = 1 << 22  # links that are counted at a time


class LexicalCounts:
    """Counts of links and of target tokens; memory grows with the different pairs only."""

    def __init__(self, source_entries: int, target_entries: int) -> None:
        self._shape = source_entries, target_entries
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._waiting: list[Ints] = []
        self._number = 0
        self.links = 0
        """All that were added."""
        self.frequency = np.zeros(target_entries, np.int64)
        """Of each target entry, with or without a link."""

    def add(self, source: Ints, target: Ints, links: Ints) -> None:
        """A sentence pair as ids, and its links (L, 2) between them."""
        np.add.at(self.frequency, target, 1)
        self._waiting.append(source[links[:, 0]] * self._shape[1] + target[links[:, 1]])
        self.links += len(links)
        self._number += len(links)
        if self._number >= WAITING:
            self._count()

    def pairs(self) -> tuple[Ints, Ints, Ints]:
        """Source entries, target entries and counts of the pairs, in the order of the ids."""
        self._count()
        return self._keys // self._shape[1], self._keys % self._shape[1], self._counts

    def _count(self) -> None:
        keys, counts = np.unique(np.concatenate([np.zeros(0, np.int64), *self._waiting]), return_counts=True)
        self._waiting, self._number = [], 0
        self._keys, places = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        total = np.zeros(len(self._keys), np.int64)
        np.add.at(total, places, np.concatenate([self._counts, counts]))
        self._counts = total

    def most_frequent(self, number: int) -> Ints:
        """The target entries with the largest counts, of equal ones the smaller ids."""
        order = np.argsort(-self.frequency, kind="stable")[:number]
        return order[self.frequency[order] > 0]

    def best(self, number: int, without: Ints) -> tuple[Ints, Ints]:
        """For each source entry the target entries of the largest p(t | s), of equal ones the smaller ids.

        Args:
            without: target entries that are left out afterwards.

        Returns:
            offsets (source entries + 1,), and the lists one behind another, each in ascending order.
        """
        source, target, counts = self.pairs()
        order = np.lexsort((target, -counts, source))
        source, target = source[order], target[order]
        starts = np.searchsorted(source, source)  # place of the first pair of its source entry
        kept = (np.arange(len(source)) - starts < number) & ~np.isin(target, without)
        source, target = source[kept], target[kept]
        order = np.lexsort((target, source))
        sizes = np.bincount(source, minlength=self._shape[0])
        return np.concatenate([[0], sizes.cumsum()]), target[order]
