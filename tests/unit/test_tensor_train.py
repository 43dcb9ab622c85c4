"""Tensor-train tables against einsum and single entries in float64, their gradients, their costs, and TT-SVD."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fairseq_compress.functional.layers.tensor_train import (
    balanced_modes,
    dense_table,
    gather_rows,
    logits,
    logits_multiply_adds,
    tensor_train_svd,
    tt_shapes,
)

MODES = (3, 2, 4), (2, 3, 2)
V, D = 21, 12  # of 24 rows


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_cores(modes=MODES, rank=3):
    return [draw(*shape, seed=k).requires_grad_() for k, shape in enumerate(tt_shapes(*modes, rank))]


def oracle(cores, entries):
    """One einsum over three cores: a b c are digits of the entry, i j k those of the position in its row."""
    full = torch.einsum("xaip,pbjq,qcky->abcijk", *cores)
    return full.reshape(-1, math.prod(core.size(2) for core in cores))[:entries]


def gradients(made, slope, inputs):
    return torch.autograd.grad((made * slope).sum(), inputs)


@st.composite
def tables(draw_from):
    """Modes of any order, a rank, and an V that may be any but a multiple of anything."""
    count = draw_from(st.integers(2, 4))
    modes = st.lists(st.integers(1, 4), min_size=count, max_size=count)
    v_modes, d_modes = draw_from(modes), draw_from(modes)
    return v_modes, d_modes, draw_from(st.integers(1, 6)), draw_from(st.integers(1, math.prod(v_modes)))


def test_balanced_modes_of_a_vocabulary_and_a_width():
    assert balanced_modes(32000, 512) == ((32, 32, 32), (8, 8, 8))
    assert balanced_modes(30000, 256) == ((32, 31, 31), (8, 4, 8))  # 31^3 = 29791; 8 · 8 · 4, the least inside
    assert balanced_modes(60000, 384, 5) == ((10, 9, 9, 9, 9), (4, 4, 2, 3, 4))
    assert balanced_modes(5, 7) == ((2, 2, 2), (7, 1, 1))
    with pytest.raises(ValueError, match="width: must be at least 1, got 0"):
        balanced_modes(5, 0)


@given(st.integers(1, 400), st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_no_other_modes_have_a_smaller_sum(entries, width):
    v_modes, d_modes = balanced_modes(entries, width)
    assert math.prod(v_modes) >= entries
    assert math.prod(d_modes) == width
    assert max(v_modes) - min(v_modes) <= 1
    pairs = list(itertools.product(range(1, max(entries, width) + 1), repeat=2))
    assert sum(v_modes) == min(a + b + -(-entries // (a * b)) for a, b in pairs)
    assert sum(d_modes) == min(a + b + width // (a * b) for a, b in pairs if width % (a * b) == 0)


def test_ranks_are_cut_where_no_larger_one_is_possible():
    assert tt_shapes((2, 3, 4), (1, 5, 2), 100) == [(1, 2, 1, 2), (2, 3, 5, 8), (8, 4, 2, 1)]
    assert tt_shapes((2, 3, 4), (1, 5, 2), 5) == [(1, 2, 1, 2), (2, 3, 5, 5), (5, 4, 2, 1)]


def test_dense_table_is_einsum_and_has_the_entries_of_the_definition():
    cores = draw_cores()
    table = dense_table(cores, V)
    torch.testing.assert_close(table, oracle(cores, V))
    first, second, third = cores  # entry 13 = 1·8 + 1·4 + 1, position 9 = 1·6 + 1·2 + 1
    torch.testing.assert_close(table[13, 9], first[0, 1, 1] @ second[:, 1, 1] @ third[:, 1, 1, 0])


@given(tables(), st.lists(st.integers(0, 10**6), max_size=9))
@settings(max_examples=40, deadline=None)
def test_rows_and_their_gradients_are_those_of_the_dense_table(table, numbers):
    *modes, rank, entries = table
    cores, ids = draw_cores(modes, rank), torch.tensor(numbers, dtype=torch.int64) % entries
    ours, theirs = gather_rows(cores, ids, entries), F.embedding(ids, dense_table(cores, entries))
    torch.testing.assert_close(ours, theirs)
    if numbers:
        slope = draw(*theirs.shape, seed=9)
        torch.testing.assert_close(gradients(ours, slope, cores), gradients(theirs, slope, cores))


def test_rows_pass_gradcheck():
    ids = torch.tensor([5, 0, 20, 5, 4])
    assert torch.autograd.gradcheck(lambda *cores: gather_rows(cores, ids, V), draw_cores(rank=2))


@pytest.mark.parametrize(("ids", "wrong"), [([3, V], V), ([-1, 3], -1)])
def test_ids_out_of_range_raise(ids, wrong):
    with pytest.raises(IndexError, match=f"ids: must be from 0 to {V - 1}, got {wrong}"):
        gather_rows(draw_cores(), torch.tensor(ids), V)


@pytest.mark.parametrize("by_table", [True, False])
@given(tables(), st.integers(1, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_logits_and_their_gradients_are_those_of_the_dense_table(by_table, table, count, zero):
    *modes, rank, entries = table
    cores, hidden = draw_cores(modes, rank), draw(count, math.prod(modes[1]), seed=8).requires_grad_()
    dense, empty = dense_table(cores, entries), entries // 2 if zero else None
    if empty is not None:
        dense = dense.index_fill(0, torch.tensor([empty]), 0)
    ours, theirs = logits(cores, hidden, entries, empty, by_table), hidden @ dense.t()
    torch.testing.assert_close(ours, theirs)
    assert empty is None or not ours[:, empty].any()
    slope, inputs = draw(*theirs.shape, seed=9), [hidden, *cores]
    torch.testing.assert_close(gradients(ours, slope, inputs), gradients(theirs, slope, inputs))


@pytest.mark.parametrize("by_table", [True, False])
def test_logits_pass_gradcheck(by_table):
    hidden = draw(2, D, seed=8).requires_grad_()
    assert torch.autograd.gradcheck(lambda h, *cores: logits(cores, h, V, 1, by_table), (hidden, *draw_cores(rank=2)))


def test_logits_of_nothing_are_nothing():
    cores = draw_cores()
    made = logits(cores, draw(0, D), V)
    made.sum().backward()
    assert made.shape == (0, V)
    assert not any(core.grad.any() for core in cores)


@pytest.mark.parametrize("by_table", [True, False])
def test_logits_under_autocast_have_its_type_and_gradients_that_of_the_parameters(by_table):
    cores = [core.detach().float().requires_grad_() for core in draw_cores()]
    hidden = draw(4, D, seed=8).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = logits(cores, hidden, V, by_table=by_table)
        rows = gather_rows(cores, torch.arange(V))
    assert (made.dtype, rows.dtype) == (torch.bfloat16, torch.float32)  # as of F.linear and F.embedding
    torch.testing.assert_close(rows, dense_table(cores, V))
    exact = hidden @ dense_table(cores, V).t()
    scale = exact.abs().max()
    assert (made - exact).abs().max() < 0.03 * scale
    inputs, slope = [hidden, *cores], draw(4, V, seed=9).float()
    for ours, theirs in zip(gradients(made.float(), slope, inputs), gradients(exact, slope, inputs), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.03 * theirs.norm()


def test_multiply_adds_by_hand():
    shapes = [(1, 3, 2, 2), (2, 2, 3, 2), (2, 4, 2, 1)]
    # h (2·3·2) by the first core: 3 digits · 1 · 2 · 2 · (3·2); the second: 3·2 · 2·3·2 · 2; the third: 24 · 2·2·1.
    contraction = 3 * 2 * 2 * 6 + 6 * 12 * 2 + 24 * 4
    # The table: 6 prefixes · (2·3) · 2 · 2, then 24 rows of 12 by rank 2; the product: 5 rows.
    making = 6 * 6 * 4 + 24 * 12 * 2
    assert logits_multiply_adds(shapes, 21, 5) == (5 * contraction, 5 * 21 * 12 + making)
    assert logits_multiply_adds(shapes, 16, 5)[0] == 5 * contraction * 2 // 3  # the last first digit has no entry


def test_the_order_of_fewer_multiply_adds_is_taken():
    low, high = draw_cores(((8, 8, 8), (4, 4, 4)), 1), draw_cores(((8, 8, 8), (4, 4, 4)), 32)
    hidden = draw(50, 64)
    for cores, by_table in [(low, False), (high, True)]:
        assert torch.equal(logits(cores, hidden, 500), logits(cores, hidden, 500, by_table=by_table))
        assert not torch.equal(logits(cores, hidden, 500), logits(cores, hidden, 500, by_table=not by_table))


def test_svd_at_full_rank_is_exact():
    table = draw(V, D)
    cores = tensor_train_svd(table, *MODES, rank=100)
    torch.testing.assert_close(dense_table(cores, V), table, rtol=0, atol=1e-12)
    assert not dense_table(cores, 24)[V:].abs().max() > 1e-12
    sizes = torch.stack([core.square().mean().sqrt() for core in cores])
    torch.testing.assert_close(sizes, sizes[:1].expand(3))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_svd_misses_no_more_than_what_the_cuts_miss(rank):
    table = draw(V, D)
    cut = [v * d for v, d in zip(*MODES, strict=True)]
    full = F.pad(table, (0, 0, 0, 24 - V)).view(*MODES[0], *MODES[1]).permute(0, 3, 1, 4, 2, 5)
    spectra = [torch.linalg.svdvals(full.reshape(math.prod(cut[:k]), -1)) for k in (1, 2)]
    missed = torch.stack([values[rank:].square().sum() for values in spectra])
    error = (F.pad(table, (0, 0, 0, 3)) - dense_table(tensor_train_svd(table, *MODES, rank), 24)).norm()
    assert missed.max().sqrt() - 1e-9 <= error <= missed.sum().sqrt() + 1e-9


def test_svd_finds_cores_that_a_table_was_made_of():
    table = dense_table(draw_cores(((4, 5, 6), (3, 2, 4)), 3), 120).detach()
    cores = tensor_train_svd(table, (4, 5, 6), (3, 2, 4), 3)
    assert [tuple(core.shape) for core in cores] == tt_shapes((4, 5, 6), (3, 2, 4), 3)
    assert (dense_table(cores, 120) - table).norm() < 1e-7 * table.norm()


def test_svd_of_zeros_is_zero_and_keeps_the_type():
    cores = tensor_train_svd(torch.zeros(V, D), *MODES, 2)
    assert all(core.dtype == torch.float32 and core.isfinite().all() for core in cores)
    assert not dense_table(cores, V).any()
