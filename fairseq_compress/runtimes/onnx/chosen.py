"""The entries of the shortlists of a batch, and the rows of the output that they need.

Shapes: B sentences, G hypotheses of each, K entries of a sentence, U of all sentences together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.decoding.beam_search import Ints

BIAS = "chosen_bias"
SHRINK_BELOW = 0.7  # rows that no sentence needs any more are left out when they are more than 30%
_AXIS = {np.dtype(np.int8): 1}  # of the rows in a tensor of two axes; default: 0


class Entries:
    """The shortlists of a batch.

    Args:
        lists: the ids of each sentence, ascending.
        total: number of entries of the dictionary.
        padding: an id that every list has.
    """

    def __init__(self, lists: Sequence[Ints], total: int, padding: int) -> None:
        self._total = total
        self.ids = np.full((len(lists), max(map(len, lists))), padding)
        """(B, K)."""
        self._absent = np.zeros(self.ids.shape, np.bool_)
        for row, entries in enumerate(lists):
            self.ids[row, : len(entries)] = entries
            self._absent[row, len(entries) :] = True
        self.union, self._places = self._united()
        self._offsets = np.where(self._absent, np.float32(-np.inf), np.float32(0))
        self.rows: dict[str, NDArray[Any]] = {}
        """What a step multiplies with, by the name of its input."""

    def _united(self) -> tuple[Ints, Ints]:
        """The ids of all sentences in ascending order, and the places of :attr:`ids` among them."""
        numbers = np.zeros(self._total, np.int64)
        numbers[self.ids] = 1
        union = np.flatnonzero(numbers)
        numbers[union] = np.arange(len(union))
        return union, numbers[self.ids]

    def set_rows(self, rows: Mapping[str, NDArray[Any]]) -> None:
        """Take what the graph of the encoder returns for :attr:`union`."""
        self.rows = {name: part for name, part in rows.items() if name != BIAS}
        if BIAS in rows:
            self._offsets += rows[BIAS][self._places]

    def keep(self, sentences: Ints) -> None:
        """Continue with some sentences."""
        self.ids, self._absent, self._offsets = (
            part[sentences] for part in (self.ids, self._absent, self._offsets)
        )  # fmt: skip
        union, places = self._united()
        if len(union) >= SHRINK_BELOW * len(self.union):
            self._places = self._places[sentences]
            return
        kept = np.searchsorted(self.union, union)
        self.rows = {name: part.take(kept, axis=_axis(part)) for name, part in self.rows.items()}
        self.union, self._places = union, places

    def inputs(self, group: int) -> dict[str, NDArray[Any]]:
        """The inputs of a step, for each hypothesis."""
        parts = {"places": self._places, "entries": self.ids, "offsets": self._offsets}
        return self.rows | {name: np.repeat(part, group, axis=0) for name, part in parts.items()}


def _axis(rows: NDArray[Any]) -> int:
    return _AXIS.get(rows.dtype, 0) if rows.ndim == 2 else 0
