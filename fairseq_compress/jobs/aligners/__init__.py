"""Where the links between the tokens of sentence pairs come from."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Pair(NamedTuple):
    """A sentence and its translation as ids, without EOS."""

    source: Ints
    target: Ints

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.source), len(self.target)


Aligner = Callable[[Iterable[Pair]], Iterator[tuple[Pair, Ints]]]
"""Pairs, each with its links (L, 2): number of the source token and of the target token. In any order."""
