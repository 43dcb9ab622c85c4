"""Supports of sparse layers: exact counts, no empty lines, degrees, and the same blocks for ever."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.supports import (
    BLOCKS,
    LAYOUTS,
    _exponential,
    gather_blocks,
    layer_seed,
    scatter_blocks,
    splitmix64,
    support,
    support_check,
)


def grid_of(drawn):
    """(R, C) with 1 where there is a block."""
    grid = np.zeros(drawn.grid, dtype=int)
    grid[tuple(drawn.coordinates.T)] = 1
    return grid


def test_splitmix64_is_the_reference():
    """First values of Vigna's splitmix64.c from the states 1234567 and 0."""
    assert splitmix64(1234567, 5).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert splitmix64(0, 3).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert splitmix64(2**64 + 5, 3).tolist() == splitmix64(5, 3).tolist()
    assert splitmix64(-1, 3).tolist() == splitmix64(2**64 - 1, 3).tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    rows=st.integers(1, 24), columns=st.integers(1, 24), block=st.sampled_from(BLOCKS), sparsity=st.floats(0, 0.999),
    seed=st.integers(-(2**70), 2**70), rewire=st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_count_is_exact_and_no_line_is_empty(layout, rows, columns, block, sparsity, seed, rewire):
    drawn = support(layout, (rows * block, columns * block), sparsity, block, seed, rewire)
    count = max(1, round((1 - sparsity) * rows * columns))
    assert drawn.coordinates.shape == (count, 2)
    assert drawn.coordinates.dtype == np.int64
    assert drawn.kept == count * block**2
    assert (np.diff(drawn.places) > 0).all()  # row-major, each once
    grid = grid_of(drawn)
    assert grid.sum() == count
    assert (grid.sum(1) > 0).sum() == rows or count < max(rows, columns)
    assert (grid.sum(0) > 0).sum() == columns or count < max(rows, columns)
    if count < max(rows, columns):  # as many lines as there can be
        assert (grid.sum(1) > 0).sum() == min(rows, count)
        assert (grid.sum(0) > 0).sum() == min(columns, count)


LITERALS = {
    "random": ("00 01 05 11 12 13 14 25 33 34", 215117709376119, 241606849690907),
    "watts_strogatz": ("00 01 12 13 14 24 25 30 34 35", 151054647229511, 60240160790849),
    "barabasi_albert": ("02 10 15 20 30 31 32 33 34 35", 90571521990738, 89608448950453),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_supports_of_old_checkpoints_stay(layout):
    """A change of these numbers makes every checkpoint of a sparse model worthless."""
    coordinates, check, larger = LITERALS[layout]
    drawn = support(layout, (32, 48), 0.6, 8, 7)
    assert ["".join(map(str, pair)) for pair in drawn.coordinates.tolist()] == coordinates.split()
    assert support_check(drawn) == check
    assert support_check(support(layout, (60, 90), 0.9, 1, 2024)) == larger


def test_seeds_of_layers_stay():
    assert layer_seed(1, "encoder.layers.0.fc1") == 8757838979423073151
    assert layer_seed(1, "encoder.layers.0.fc2") == 9023475853249861656
    assert layer_seed(2, "encoder.layers.0.fc1") != layer_seed(1, "encoder.layers.0.fc1")


def test_the_check_tells_supports_apart():
    drawn = support("random", (64, 64), 0.5, 8, 1)
    moved = drawn.coordinates.copy()
    moved[-1, 1] ^= 1
    others = [drawn._replace(coordinates=moved), drawn._replace(shape=(64, 128)), drawn._replace(block=16)]
    assert len({support_check(each) for each in [drawn, *others]}) == 4
    assert 0 <= support_check(drawn) < 2**48


def test_random_keeps_the_smallest_keys():
    keys = splitmix64(5, 100)
    expected = np.sort(np.argsort(keys)[:50])  # at half of 10 x 10, no line was empty
    assert support("random", (10, 10), 0.5, 1, 5).places.tolist() == expected.tolist()


def test_random_is_even():
    """Over 2,000 seeds each of 16 blocks is kept as often as the others: 8 of 16, standard deviation 22."""
    counts = sum(grid_of(support("random", (4, 4), 0.5, 1, seed)) for seed in range(2000))
    assert counts.sum() == 16000
    assert abs(counts - 1000).max() < 5 * 22.4


@pytest.mark.parametrize(("size", "neighbours"), [(12, 1), (12, 2), (12, 3), (9, 5), (9, 9)])
def test_watts_strogatz_without_rewiring_is_the_ring_lattice(size, neighbours):
    drawn = support("watts_strogatz", (size, size), 1 - neighbours / size, 1, 3, rewire=0)
    offsets = [0, 1, -1, 2, -2, 3, -3, 4, -4][:neighbours]
    expected = {(node, (node + offset) % size) for node in range(size) for offset in offsets}
    assert set(map(tuple, drawn.coordinates.tolist())) == expected


def test_the_lattice_of_a_wide_grid_by_hand():
    """4 rows and 8 columns on one ring: row r lies between columns 2r and 2r + 1."""
    drawn = support("watts_strogatz", (4, 8), 1 - 16 / 32, 1, 3, rewire=0)
    expected = {(row, (2 * row + offset) % 8) for row in range(4) for offset in (-1, 0, 1, 2)}
    assert set(map(tuple, drawn.coordinates.tolist())) == expected


def lattice_distance(grid):
    rows, columns = np.nonzero(grid)
    apart = abs(rows - columns)
    return np.minimum(apart, len(grid) - apart)


def test_rewiring_moves_the_share_that_it_is_told():
    """100 nodes with 10 neighbours: a moved block falls on the lattice again in 1 of about 10 cases."""
    share = {}
    for p in (0.0, 0.2, 1.0):
        grids = [grid_of(support("watts_strogatz", (100, 100), 0.9, 1, seed, rewire=p)) for seed in range(5)]
        assert all((grid.sum(1) == 10).all() for grid in grids)  # rewiring leaves the fan-in
        share[p] = np.mean([np.mean(lattice_distance(grid) > 5) for grid in grids])
    assert share[0.0] == 0
    assert 0.14 < share[0.2] < 0.22
    assert 0.85 < share[1.0] < 0.93  # 89 of 100 columns are farther than 5


def test_few_rewired_blocks_make_paths_short():
    """The finding of Watts & Strogatz: steps between two nodes fall long before neighbourhoods dissolve."""

    def mean_path(p):
        step = np.minimum(grid_of(support("watts_strogatz", (100, 100), 0.95, 1, 4, rewire=p)), 1)
        reached, found, total = np.eye(100, dtype=bool), np.eye(100, dtype=bool), 0
        for length in range(1, 100):
            found = (found.astype(int) @ step > 0) & ~reached
            reached |= found
            total += length * found.sum()
        assert reached.all()
        return total / 9900

    assert mean_path(0.1) < 0.5 * mean_path(0)


def attachments(order, rows, columns, count):
    """Probabilities of all masks of preferential attachment for one order of arrivals, by enumeration."""
    states, there, placed = {(frozenset(), (0,) * (rows + columns)): 1.0}, [], 0
    for arrived, node in enumerate(order, start=1):
        others = [other for other in there if (other < rows) != (node < rows)]
        wanted = min(len(others), count * arrived // (rows + columns) - placed)
        placed += wanted
        for _ in range(wanted):
            following = {}
            for (blocks, degree), probability in states.items():
                block = {other: (min(node, other), max(node, other) - rows) for other in others}
                left = [other for other in others if block[other] not in blocks]
                # While one node arrives, the degrees of those that it is joined to do not count yet.
                weight = {other: degree[other] + 1 for other in left}
                for other in left:
                    key = (blocks | {block[other]}, degree)
                    share = probability * weight[other] / sum(weight.values())
                    following[key] = following.get(key, 0.0) + share
            states = following
        counted = {}
        for (blocks, _), probability in states.items():
            degree = tuple(
                sum((r == n) if n < rows else (c == n - rows) for r, c in blocks) for n in range(rows + columns)
            )
            counted[blocks, degree] = counted.get((blocks, degree), 0.0) + probability
        states, there = counted, [*there, node]
    return {blocks: probability for (blocks, _), probability in states.items()}


def test_barabasi_albert_draws_in_proportion_to_degrees():
    """All masks of a grid of 3 x 3 with 5 blocks, against an enumeration of arrivals and draws."""
    orders = list(permutations(range(6)))
    expected = {}
    for order in orders:
        for blocks, probability in attachments(order, 3, 3, 5).items():
            expected[blocks] = expected.get(blocks, 0.0) + probability / len(orders)
    draws, seen = 6000, {}
    for seed in range(draws):
        keys, more = splitmix64(seed, 9).reshape(3, 3), splitmix64(seed + 2**40, 15)
        blocks = frozenset(map(tuple, np.argwhere(LAYOUTS["barabasi_albert"](keys, more, 5, 0.0)).tolist()))
        seen[blocks] = seen.get(blocks, 0) + 1
    assert set(seen) <= set(expected)
    chi2 = sum((seen.get(blocks, 0) - draws * p) ** 2 / (draws * p) for blocks, p in expected.items())
    freedom = len(expected) - 1
    assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5


def test_the_logarithm_of_any_machine():
    keys = np.concatenate([splitmix64(3, 10000), np.array([0, 2**64 - 1, 2**63, 1 << 12], dtype=np.uint64)])
    exact = -np.log(((keys >> np.uint64(12)) + 0.5) * 2.0**-52)
    np.testing.assert_allclose(_exponential(keys), exact, rtol=1e-14, atol=1e-15)


def test_barabasi_albert_has_hubs():
    for seed in range(5):
        even = grid_of(support("random", (100, 100), 0.9, 1, seed))
        uneven = grid_of(support("barabasi_albert", (100, 100), 0.9, 1, seed))
        for side in (0, 1):
            assert uneven.sum(side).max() > 1.5 * even.sum(side).max()
            assert uneven.sum(side).std() > 2 * even.sum(side).std()
            assert np.median(uneven.sum(side)) < np.median(even.sum(side))  # most have few, some have many


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layout": "ring"}, "layout: must be one of random, watts_strogatz, barabasi_albert, got 'ring'"),
        ({"block": 4}, "block: must be one of 1, 8, 16, 32, got 4"),
        ({"block": 32}, "block: must divide both sizes of a weight, got 32 for 32 x 48"),
        ({"shape": (0, 48)}, "block: must divide both sizes of a weight, got 8 for 0 x 48"),
        ({"sparsity": 1.0}, "sparsity: must be from 0 to less than 1, got 1.0"),
        ({"sparsity": float("nan")}, "sparsity: must be from 0 to less than 1, got nan"),
        ({"rewire": 1.5}, "rewire: must be a probability, 0 to 1, got 1.5"),
    ],
)
def test_bad_arguments(change, named):
    arguments = {"layout": "random", "shape": (32, 48), "sparsity": 0.5, "block": 8, "seed": 1} | change
    with pytest.raises(ConfigError) as error:
        support(**arguments)
    assert str(error.value) == named


@pytest.mark.parametrize("block", BLOCKS)
def test_scatter_against_single_entries(block):
    drawn = support("random", (2 * block, 3 * block), 0.4, block, 1)
    places = torch.from_numpy(drawn.places)
    shape = (len(places),) if block == 1 else (len(places), block, block)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weight = scatter_blocks(values, places, drawn.shape)
    expected = torch.zeros(drawn.shape, dtype=torch.float64)
    for number, (row, column) in enumerate(drawn.coordinates.tolist()):
        expected[row * block : (row + 1) * block, column * block : (column + 1) * block] = values.detach()[number]
    assert torch.equal(weight, expected)
    assert torch.equal(gather_blocks(weight, places, block), values)
    of_weight = torch.randn_like(expected)
    weight.backward(of_weight)
    assert torch.equal(values.grad, gather_blocks(of_weight, places, block))
