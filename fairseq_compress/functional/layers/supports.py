r"""The support of a sparse layer: the blocks of its weight that are not zero, drawn from a seed and never stored.

A weight (O, I) is a grid of (R, C) = (O / b, I / b) blocks of b x b entries, of which exactly
:math:`\max(1, round((1 - s) R C))` are nonzero at sparsity s. A support is the same on every machine and in every later
version: all randomness is :func:`splitmix64`, and all comparisons are of integers, or of sums, products and quotients
that IEEE 754 rounds in one way only. No row and no column of blocks is empty if the count allows it.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.draws import STEP, Keys, seed_of, splitmix64

Mask: TypeAlias = NDArray[np.bool_]

BLOCKS = (1, 8, 16, 32)


class Support(NamedTuple):
    """The nonzero blocks of a weight."""

    coordinates: NDArray[np.int64]
    """(n, 2) row and column of each block in the grid, in row-major order."""
    block: int
    """b"""
    shape: tuple[int, int]
    """(O, I) of the weight."""

    @property
    def kept(self) -> int:
        """Nonzero entries of the weight, n b²."""
        return len(self.coordinates) * self.block**2

    @property
    def grid(self) -> tuple[int, int]:
        """(R, C): rows and columns of blocks."""
        return self.shape[0] // self.block, self.shape[1] // self.block

    @property
    def places(self) -> NDArray[np.int64]:
        """(n,) number of each block, counted along the rows of the grid."""
        return self.coordinates[:, 0] * self.grid[1] + self.coordinates[:, 1]


def layer_seed(seed: int, name: str) -> int:
    """The seed of one layer's support, 63 bits, from the model's seed and the layer's name (sha256)."""
    return seed_of("support", seed, name)


def support(
    layout: str, shape: tuple[int, int], sparsity: float, block: int, seed: int, rewire: float = 0.2
) -> Support:
    """The support of a weight ``shape`` (O, I) in a layout.

    ``random``: all blocks are equally likely. ``watts_strogatz``: near neighbours on a ring and some far ones, see
    :func:`_watts_strogatz`. ``barabasi_albert``: few rows and columns have many blocks, see :func:`_barabasi_albert`.

    Args:
        layout: one of :data:`LAYOUTS`.
        sparsity: s, fraction of zero blocks, in [0, 1).
        block: b, one of :data:`BLOCKS`.
        seed: any integer; it counts modulo 2⁶⁴.
        rewire: of ``watts_strogatz``, probability p in [0, 1] that a block leaves the lattice.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"layout: must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if block not in BLOCKS:
        raise ConfigError(f"block: must be one of {', '.join(map(str, BLOCKS))}, got {block}")
    if min(shape) < 1 or shape[0] % block or shape[1] % block:
        raise ConfigError(f"block: must divide both sizes of a weight, got {block} for {shape[0]} x {shape[1]}")
    if not 0 <= sparsity < 1:
        raise ConfigError(f"sparsity: must be from 0 to less than 1, got {sparsity}")
    if not 0 <= rewire <= 1:
        raise ConfigError(f"rewire: must be a probability, 0 to 1, got {rewire}")
    rows, columns = shape[0] // block, shape[1] // block
    count = max(1, round((1 - sparsity) * rows * columns))
    keys = splitmix64(seed, rows * columns).reshape(rows, columns)
    # The numbers after those of the blocks, for what else a layout draws.
    more = splitmix64(seed + STEP * rows * columns, rows * columns + rows + columns)
    kept = LAYOUTS[layout](keys, more, count, rewire)
    kept = _fill_columns(kept, keys)
    kept = _fill_columns(kept.T, keys.T).T
    return Support(np.argwhere(kept).astype(np.int64), block, (shape[0], shape[1]))


def support_check(support: Support) -> int:
    """48 bits of the sha256 of a support, for a checkpoint; fairseq's script for averages sums them in int64."""
    digest = hashlib.sha256(np.array([*support.shape, support.block], dtype="<i8").tobytes())
    digest.update(support.coordinates.astype("<i8").tobytes())
    return int.from_bytes(digest.digest()[:6], "little")


def scatter_blocks(values: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """The weight (O, I) of the blocks of a support, zero elsewhere; its gradient is gathered at the support.

    Args:
        values: (n, b, b), or (n,) for b = 1.
        places: (n,) int64, see :attr:`Support.places`.
        shape: (O, I).
    """
    if values.dim() == 1:
        return values.new_zeros(shape[0] * shape[1]).index_copy(0, places, values).view(shape)
    b = values.size(1)
    rows, columns = shape[0] // b, shape[1] // b
    blocks = values.new_zeros(rows * columns, b, b).index_copy(0, places, values)
    return blocks.view(rows, columns, b, b).transpose(1, 2).reshape(shape)


def gather_blocks(weight: Tensor, places: Tensor, block: int) -> Tensor:
    """The entries of a weight (O, I) on a support: (n, b, b), or (n,) for b = 1. See :func:`scatter_blocks`."""
    if block == 1:
        return weight.flatten().index_select(0, places)
    tiles = weight.unflatten(1, (-1, block)).unflatten(0, (-1, block)).transpose(1, 2)
    return tiles.flatten(0, 1).index_select(0, places)


def _random(keys: Keys, more: Keys, count: int, rewire: float) -> Mask:
    """The blocks with the smallest keys, which all differ."""
    return keys <= np.partition(keys, count - 1, axis=None)[count - 1]


def _watts_strogatz(keys: Keys, more: Keys, count: int, rewire: float) -> Mask:
    r"""A small world: Watts & Strogatz, Nature 393 (1998); for blocks of a weight, Gray, Radford & Kingma (2017).

    Row r is at :math:`(r + 1/2) / R` of a ring, column c at :math:`(c + 1/2) / C`. The lattice is the ``count`` blocks
    of smallest distance: each node of the longer side with its k nearest of the shorter side, itself first, then the
    next one, the one before it, and so on; ties are broken by the keys.

    Then each block stays with probability 1 - p; the others move within their row, uniformly to a block that has not
    stayed. So each row has as many blocks as in the lattice.
    """
    rows, columns = keys.shape
    ring = 2 * rows * columns
    after = ((2 * np.arange(columns) + 1) * rows - (2 * np.arange(rows)[:, None] + 1) * columns) % ring
    before = ring - after
    distance = 2 * np.minimum(after, before) + (before < after)
    lattice = _first(np.lexsort((keys.ravel(), distance.ravel())), count, keys.shape)
    coins = (more[: keys.size].reshape(keys.shape) >> np.uint64(11)) * 2.0**-53  # exact
    stays = lattice & (coins >= rewire)
    moved = lattice.sum(1, keepdims=True) - stays.sum(1, keepdims=True)
    order = np.argsort(np.where(stays, np.uint64(2**64 - 1), keys), axis=1)  # what has not stayed comes first
    new = np.zeros(keys.shape, dtype=bool)
    np.put_along_axis(new, order, np.arange(columns) < moved, axis=1)
    return stays | new


def _barabasi_albert(keys: Keys, more: Keys, count: int, rewire: float) -> Mask:
    r"""Preferential attachment between rows and columns: Barabási & Albert, Science 286 (1999).

    Rows and columns arrive one by one in a random order. Each is joined to m of the other side that arrived before,
    drawn without replacement in proportion to their degree + 1: the m smallest of :math:`-\ln u / (degree + 1)`, u
    uniform, of the block's key (Efraimidis & Spirakis, Inf. Process. Lett. 97, 2006). What the first ones lack is
    left to the next.
    """
    rows, columns = keys.shape
    kept = np.zeros(keys.shape, dtype=bool)
    there = np.zeros(rows + columns, dtype=bool)
    degree = np.zeros(rows + columns, dtype=np.int64)  # rows, then columns
    placed, exponential = 0, _exponential(keys)
    for arrived, node in enumerate(np.argsort(more[-(rows + columns) :]).tolist(), start=1):
        line, own, start = (kept, exponential, rows) if node < rows else (kept.T, exponential.T, 0)
        at = node if node < rows else node - rows
        others = np.flatnonzero(there[start : start + own[at].size])
        # r rows and c columns that are there have r c ≤ (r + c) R C / (R + C) blocks, so what is left to the next
        # always has a place, and the last one completes the count.
        wanted = count * arrived // (rows + columns) - placed
        chance = own[at, others] / (degree[start + others] + 1)
        chosen = others[np.argsort(chance, kind="stable")[:wanted]]
        line[at, chosen] = True
        degree[start + chosen] += 1
        degree[node] += len(chosen)
        placed += len(chosen)
        there[node] = True
    return kept


def _exponential(keys: Keys) -> NDArray[np.float64]:
    """-ln u of the exponential distribution, u = (k + 1/2) / 2⁵² for the first 52 bits k of each key.

    A library's logarithm may differ in its last digit from machine to machine. With u = m · 2ᵉ and
    s = (m - 1) / (m + 1), ln u = e ln 2 + 2 Σ s^(2i+1) / (2i + 1) takes only operations that IEEE 754 rounds in one
    way; the first term left out is below 2⁻⁵³, as abs(s) <= 1/3.
    """
    mantissa, exponent = np.frexp(((keys >> np.uint64(12)) + 0.5) * 2.0**-52)
    s = (mantissa - 1) / (mantissa + 1)
    square, series = s * s, np.zeros(keys.shape)
    for odd in range(35, 0, -2):
        series = series * square + 1 / odd
    return -(exponent * 0.6931471805599453 + 2 * (s * series))


def _first(order: NDArray[np.int64], count: int, grid: tuple[int, ...]) -> Mask:
    """The first ``count`` blocks of an order of all blocks of the grid."""
    kept = np.zeros(grid, dtype=bool)
    kept.flat[order[:count]] = True
    return kept


def _fill_columns(kept: Mask, keys: Keys) -> Mask:
    """Blocks of columns with several move within their row, in the order of their keys, to empty columns."""
    kept = kept.copy()
    degree = kept.sum(0)
    empty = np.flatnonzero(degree == 0).tolist()
    rows, columns = np.nonzero(kept)
    for at in np.argsort(keys[kept]).tolist() if empty else ():
        row, column = rows[at], columns[at]
        if empty and degree[column] > 1:
            kept[row, column], kept[row, empty.pop()] = False, True
            degree[column] -= 1
    return kept


LAYOUTS: dict[str, Callable[[Keys, Keys, int, float], Mask]] = {
    "random": _random,
    "watts_strogatz": _watts_strogatz,
    "barabasi_albert": _barabasi_albert,
}
