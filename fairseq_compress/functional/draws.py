"""Seeds and counter-based random numbers: functions of their position only, equal on every machine."""

import hashlib
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Keys: TypeAlias = NDArray[np.uint64]
Integers: TypeAlias = NDArray[np.integer[Any]]

STEP = 0x9E3779B97F4A7C15  # of the state of splitmix64


def seed_of(*parts: int | str) -> int:
    """A seed of 63 bits, different for every list of parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def splitmix64(seed: int, count: int) -> Keys:
    """The first ``count`` numbers of the generator splitmix64 from a state; number i depends on the state and i only.

    Steele, Lea & Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), in the form of S. Vigna's
    public ``splitmix64.c``. The state before number i is seed + i · 0x9E3779B97F4A7C15 modulo 2⁶⁴, and each number is a
    bijection of its state: the numbers of one seed all differ.
    """
    return _mixed(np.arange(1, count + 1, dtype=np.uint64) * np.uint64(STEP) + np.uint64(seed % 2**64))


def word_draws(stream: int, sentences: Integers, counts: Integers) -> NDArray[np.float64]:
    r"""One number of [0, 1) for each word of some sentences, a multiple of :math:`2^{-53}`.

    Word k of sentence i has number k of :func:`splitmix64` from a state that is number i of splitmix64 from ``stream``.
    Returns (W,) for the W = Σ ``counts`` words of ``sentences`` (B,), one sentence after the other.
    """
    states = _numbers(np.full(len(sentences), stream % 2**64, dtype=np.uint64), sentences)
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    bits = _numbers(np.repeat(states, counts), places) >> np.uint64(11)
    return np.ldexp(bits.astype(np.float64), -53)  # exact


def _numbers(states: Keys, places: Integers) -> Keys:
    """Number ``places[j]``, from 0, of splitmix64 from ``states[j]``, for each j."""
    return _mixed(states + (places.astype(np.uint64) + np.uint64(1)) * np.uint64(STEP))


def _mixed(z: Keys) -> Keys:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
