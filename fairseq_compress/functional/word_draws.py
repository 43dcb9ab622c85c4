"""A uniform number for every word of a text, by its place and not by who asks first."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fairseq_compress.functional.layers.supports import STEP

Integers: TypeAlias = NDArray[np.integer[Any]]


def word_draws(stream: int, sentences: Integers, counts: Integers) -> NDArray[np.float64]:
    r"""One number of [0, 1) for each word of some sentences, a multiple of :math:`2^{-53}`.

    Word k of sentence i has number k of the generator splitmix64 from a state that is number i of splitmix64 from
    ``stream``. So it depends on the stream, on i and on k, and on nothing else: neither on the other sentences nor on
    their order. Word 0 of sentence 0 has what ``splitmix64(splitmix64(stream, 1)[0], 1)`` gives, see
    :func:`fairseq_compress.functional.layers.supports.splitmix64`.

    Args:
        stream: any integer; it counts modulo 2⁶⁴.
        sentences: (B,) numbers i, from 0.
        counts: (B,) words of each.

    Returns:
        (W,) for the W = Σ counts words, one sentence after the other.
    """
    states = _numbers(np.full(len(sentences), stream % 2**64, dtype=np.uint64), sentences)
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    bits = _numbers(np.repeat(states, counts), places) >> np.uint64(11)
    draws: NDArray[np.float64] = np.ldexp(bits.astype(np.float64), -53)  # exact
    return draws


def _numbers(states: NDArray[np.uint64], places: Integers) -> NDArray[np.uint64]:
    """Number ``places[j]``, from 0, of splitmix64 from ``states[j]``, for each j."""
    z = states + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(STEP)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
