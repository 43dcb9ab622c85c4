"""Blocking of repeated n-grams (arXiv:1705.04304)."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_NONE = np.zeros(0, np.int64), np.zeros(0, np.int64)


def repeating_tokens(history: Ints, size: int) -> tuple[Ints, Ints]:
    """The tokens that would complete an n-gram of ``size`` tokens for the second time.

    Args:
        history: the tokens of N hypotheses so far, without the EOS that fairseq begins with, ``(N, T)``.
        size: n; 0 forbids nothing.

    Returns:
        forbidden pairs: numbers of hypotheses and, for each, a token; pairs may repeat.
    """
    steps = history.shape[1]
    if size == 0 or steps < size:
        return _NONE
    ngrams = np.lib.stride_tricks.sliding_window_view(history, size, axis=1)
    context = history[:, steps - size + 1 :]
    rows, places = np.nonzero((ngrams[:, :, :-1] == context[:, None]).all(2))
    return rows, ngrams[rows, places, -1]


class History:
    """The tokens of a batch, ``(B, G, T)``; nothing is stored if the size n of the n-grams is 0."""

    def __init__(self, batch: int, size: int) -> None:
        self._size = size
        self._tokens: Ints = np.zeros((batch, 1, 0), np.int64)

    def append(self, tokens: Ints, parents: Ints) -> None:
        """Let the new hypotheses continue ``parents`` by ``tokens``, ``(B, G)`` each."""
        if self._size:
            continued = self._tokens[np.arange(len(parents))[:, None], parents]
            self._tokens = np.concatenate([continued, tokens[:, :, None]], axis=2)

    def keep(self, rows: Ints) -> None:
        self._tokens = self._tokens[rows]

    def repeating(self) -> tuple[Ints, Ints]:
        """The forbidden pairs of :func:`repeating_tokens`; hypothesis g of sentence b has the number ``b * G + g``."""
        if not self._size:
            return _NONE
        batch, group, steps = self._tokens.shape
        return repeating_tokens(self._tokens.reshape(batch * group, steps), self._size)
