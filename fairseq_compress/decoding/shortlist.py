"""Lexical shortlists (arXiv:1412.2007, 1610.00072): the output is chosen among few entries for each sentence.

    V(x) = F ∪ ⋃_{s in x} B(s)        F: the first N target entries by frequency; B(s): the best M by p(t | s)

with the special entries, the source tokens themselves where both sides have one dictionary, and the next free entries
up to a multiple of 64. V(x) depends on the sentence x alone, never on its batch.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
MULTIPLE = 64
"""Of the number of entries: sums over them then have the same order, whatever padding follows."""
LEAST = 2 * MULTIPLE


class Lists(NamedTuple):
    """F, and B(s) without F for each source entry s."""

    always: Ints
    offsets: Ints
    """B(s) is ``entries[offsets[s] : offsets[s + 1]]``."""
    entries: Ints


class Shortlist:
    """V(x) of sentences.

    Args:
        lists: of the source entries.
        target_entries: their number.
        shared: whether both sides have one dictionary.
        special: the largest id of a special entry; all up to it are always there, in their own places.
    """

    def __init__(self, lists: Lists, target_entries: int, shared: bool, special: int) -> None:
        self._lists, self._shared = lists, shared
        self.target_entries = target_entries
        self._base = np.zeros(target_entries, np.bool_)
        self._base[: special + 1] = self._base[lists.always] = True

    def of(self, source: Sequence[int] | Ints, least: int = LEAST) -> Ints:
        """The ids of V(x) in ascending order, at least ``least``, or all that there are."""
        chosen, (_, offsets, entries) = self._base.copy(), self._lists
        for token in source:
            chosen[entries[offsets[token] : offsets[token + 1]]] = True
        if self._shared:
            chosen[np.asarray(source, np.int64)] = True
        count = int(np.count_nonzero(chosen))
        wanted = max(-(-count // MULTIPLE), -(-least // MULTIPLE)) * MULTIPLE
        if wanted >= self.target_entries:
            return self._all
        chosen[np.flatnonzero(~chosen)[: wanted - count]] = True
        return np.flatnonzero(chosen)

    @cached_property
    def _all(self) -> Ints:
        return np.arange(self.target_entries)
