"""Codebooks of 2^b entries for the single weights of a matrix: its percentiles, or k-means.

A weight is stored as the b-bit index of the nearest entry: :class:`Codes` with blocks of one number.
"""

import numpy as np
import torch
from torch import Tensor

from fairseq_compress.functional.quantization.clustering import distinct, nearest
from fairseq_compress.functional.quantization.codes import Codes, check_matrix, make_codes, scaled
from fairseq_compress.functional.quantization.product import product_quantize

BITS = range(1, 17)
ROUNDS = 1000  # of k-means on sorted numbers; most matrices converge after some hundred, within 0.1 s
FINENESS = 8  # percentiles for each entry, from which the density of the weights is estimated


def percentile_codebook(weight: Tensor, bits: int) -> Codes:
    """Entries at the (i + ½) / 2^b quantiles of all weights, i in [0, 2^b - 1], interpolated between neighbours.

    For ``weight`` (R, C) of at least 2^b entries and b in [1, 16]: M = 1, K = 2^b ascending entries, blocks of 1.
    """
    _check(weight, bits)
    matrix, unit = scaled(weight)
    return _codes(matrix, _percentiles(np.sort(matrix.numpy(), axis=None), 2**bits), unit)


def kmeans_codebook(weight: Tensor, bits: int, block: int = 1, seed: int = 1) -> Codes:
    """Entries by k-means on all weights, or on blocks of several (:func:`product_quantize`).

    Of single weights the better result of two deterministic starts of :func:`lloyd`: the percentiles, and entries at
    the optimal density for many of them, proportional to the cube root of the weights' density (Panter and Dite, 1951).
    The squared error is never above that of :func:`percentile_codebook`, and no more than 2^b different weights are
    represented exactly.

    Returns codes with M = 1 and K = 2^b entries, ascending for single weights, of a ``weight`` (R, C) of at least 2^b
    blocks of d = ``block`` entries, b in [1, 16]; ``seed`` is for larger blocks.
    """
    _check(weight, bits, block)
    if block > 1:
        return product_quantize(weight, block, 2**bits, seed=seed)
    matrix, unit = scaled(weight)
    few = distinct(matrix.view(-1, 1), 2**bits)
    if few is not None:
        return _codes(matrix, np.pad(few.flatten().numpy(), (0, 2**bits - len(few)), mode="edge"), unit)
    ordered = np.sort(matrix.numpy(), axis=None)
    percentiles = _percentiles(ordered, 2**bits)
    starts = [percentiles, _companded(ordered, 2**bits)]
    found = [percentiles, *(lloyd(ordered, start, ROUNDS) for start in starts)]
    return _codes(matrix, min(found, key=lambda entries: _squared_error(ordered, entries)), unit)


def lloyd(ordered: np.ndarray, entries: np.ndarray, rounds: int) -> np.ndarray:
    """k-means of sorted numbers: each round moves every entry to the mean of the numbers nearest to it.

    A round costs K binary searches, since sums over ranges are differences of cumulative sums. An empty entry splits
    the entry of the largest error at its mean. ``ordered`` (N,), ``entries`` (K,) and the result are ascending.
    """
    numbers, entries = ordered.astype(np.float64), entries.astype(np.float64)
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (numbers, numbers**2))
    for _ in range(rounds):
        bounds = _bounds(numbers, entries)
        counts, totals = np.diff(bounds), np.diff(sums[bounds])
        moved = np.where(counts > 0, totals / np.maximum(counts, 1), entries)
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            errors = np.diff(squares[bounds]) - totals * moved
            _split(numbers, sums, bounds, moved, empty, np.argsort(-errors, kind="stable")[: len(empty)])
            moved.sort()
        if np.array_equal(moved, entries):
            break
        entries = moved
    return entries.astype(np.float32)


def _split(
    numbers: np.ndarray, sums: np.ndarray, bounds: np.ndarray, moved: np.ndarray, empty: np.ndarray, large: np.ndarray
) -> None:
    """In place: an empty entry and one of large error become the means of the upper and lower part of the latter."""
    for free, taken in zip(empty, large, strict=False):
        first, last = bounds[taken], bounds[taken + 1]
        middle = first + np.searchsorted(numbers[first:last], moved[taken], side="right")
        if first < middle < last:  # else all numbers are equal
            moved[taken] = (sums[middle] - sums[first]) / (middle - first)
            moved[free] = (sums[last] - sums[middle]) / (last - middle)


def _bounds(ordered: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """(K + 1,): the numbers nearest to entry k are those from ``bounds[k]`` up to ``bounds[k + 1]``."""
    inner = np.searchsorted(ordered, (entries[1:] + entries[:-1]) / 2, side="right")
    return np.concatenate([[0], inner, [len(ordered)]])


def _percentiles(ordered: np.ndarray, count: int) -> np.ndarray:
    found: np.ndarray = np.quantile(ordered.astype(np.float64), (np.arange(count) + 0.5) / count)
    return found.astype(np.float32)


def _companded(ordered: np.ndarray, count: int) -> np.ndarray:
    """Entries at the density f^(1/3), f being constant between neighbours of ``FINENESS * count`` quantiles."""
    edges = np.quantile(ordered.astype(np.float64), np.linspace(0, 1, FINENESS * count + 1))
    shares = np.concatenate([[0.0], np.cumsum(np.diff(edges) ** (2 / 3))])  # width · f^(1/3), f being 1 / width
    return np.interp((np.arange(count) + 0.5) / count, shares / shares[-1], edges)


def _squared_error(ordered: np.ndarray, entries: np.ndarray) -> float:
    exact = entries.astype(np.float64)
    nearest_entries = np.repeat(exact, np.diff(_bounds(ordered, exact)))
    return float(np.square(ordered - nearest_entries).sum())


def _codes(matrix: Tensor, entries: np.ndarray, unit: float) -> Codes:
    """Codes of a :func:`scaled` matrix."""
    centroids = torch.from_numpy(entries.astype(np.float32)).view(1, -1, 1)
    assignments = nearest(matrix.view(-1, 1), centroids[0])
    return make_codes((centroids.double() * unit).float(), assignments, (matrix.size(0), matrix.size(1)))


def _check(weight: Tensor, bits: int, block: int = 1) -> None:
    check_matrix(weight, block)
    if bits not in BITS:
        raise ValueError(f"bits: must be in [{BITS[0]}, {BITS[-1]}], got {bits}")
    if 2**bits > weight.numel() // block:
        raise ValueError(f"bits: 2^bits must be at most the {weight.numel() // block} blocks of the matrix, got {bits}")
