"""Low-rank factors against singular values, ranks for a size against brute force, the layer against a dense one."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layers.low_rank import (
    break_even_rank,
    rank_for_energy,
    ranks_for_size,
    singular_values,
    stored_numbers,
    truncated_svd,
)
from fairseq_compress.modules.low_rank_linear import LowRankLinear
from fairseq_compress.modules.structured import relative_error

SHAPES = [(6, 5), (5, 6), (40, 6), (6, 40), (7, 7), (1, 4), (4, 1)]


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_missed_is_the_tail_of_the_singular_values(shape):
    weight = draw(*shape)
    values = torch.linalg.svdvals(weight)
    torch.testing.assert_close(singular_values(weight), values)
    for rank in range(1, min(shape) + 1):
        up, down = truncated_svd(weight, rank)
        assert (up.shape, down.shape) == ((shape[0], rank), (rank, shape[1]))
        torch.testing.assert_close((weight - up @ down).norm(), values[rank:].norm(), rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(up.norm(dim=0), values[:rank].sqrt())  # balanced
        torch.testing.assert_close(down.norm(dim=1), values[:rank].sqrt())


@pytest.mark.parametrize("shape", [(60, 8), (8, 60), (9, 8)])
def test_a_matrix_of_that_rank_is_exact_and_rows_of_zeros_stay(shape):
    weight = draw(shape[0], 3) @ draw(3, shape[1], seed=1)
    weight[1] = 0
    for rank in (3, 5):  # the directions beyond the rank of the matrix carry nothing, and no NaN
        up, down = truncated_svd(weight, rank)
        torch.testing.assert_close(up @ down, weight, rtol=0, atol=1e-12)
        assert (up @ down)[1].abs().max() == 0 or shape[0] < shape[1]
    up, down = truncated_svd(torch.zeros(shape), 2)
    assert torch.equal(up @ down, torch.zeros(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_have_the_type_and_signs_that_do_not_depend_on_chance(shape):
    weight = draw(*shape, dtype=torch.float32)
    up, down = truncated_svd(weight, min(shape))
    assert up.dtype == down.dtype == torch.float32
    again = truncated_svd(weight.clone(), min(shape))
    assert torch.equal(up, again[0])
    assert torch.equal(down, again[1])
    short = down if shape[0] >= shape[1] else up.t()
    assert (short.gather(1, short.abs().argmax(1, keepdim=True)) > 0).all()
    assert truncated_svd(weight.bfloat16(), 1)[0].dtype == torch.bfloat16


def test_energy_by_hand():
    values = torch.tensor([3.0, 2.0, 1.0, 0.0])  # squares 9, 4, 1, 0 of 14
    for energy, rank in ((0.01, 1), (9 / 14, 1), (0.65, 2), (13 / 14, 2), (0.93, 3), (1.0, 3)):
        assert rank_for_energy(values, energy) == rank
    assert rank_for_energy(torch.zeros(3), 0.5) == 1
    assert rank_for_energy(torch.ones(5), 1.0) == 5


def test_break_even_by_hand():
    assert break_even_rank(512, 512) == 256  # 256 · 1,024 = 512 · 512
    assert break_even_rank(2048, 512) == 410  # 409.6
    assert break_even_rank(1, 9) == 1
    assert stored_numbers(255, 512, 512) == 255 * 1024
    assert stored_numbers(300, 512, 512) == 512 * 512


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: truncated_svd(draw(3, 4), 0), "rank: must be from 1 to 3, got 0"),
        (lambda: truncated_svd(draw(3, 4), 4), "rank: must be from 1 to 3, got 4"),
        (lambda: truncated_svd(draw(3), 1), "weight: must be a matrix of floating type"),
        (lambda: truncated_svd(torch.tensor([[1.0, torch.nan]]), 1), "weight: must be finite, got 1 entries"),
        (lambda: rank_for_energy(torch.ones(2), 1.5), "energy: must be over 0 and at most 1, got 1.5"),
        (lambda: rank_for_energy(torch.ones(2), 0.0), "energy: must be over 0 and at most 1, got 0.0"),
        (lambda: ranks_for_size({"a": torch.ones(3)}, {"a": (3, 5)}, 7), "budget: must be at least 8, .* got 7"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def options(values, rows, columns):
    """(rank, numbers, energy) of every choice for a matrix."""
    energy = values.square().cumsum(0) / values.square().sum()
    ranks = [*range(1, break_even_rank(rows, columns)), min(rows, columns)]
    return [(rank, stored_numbers(rank, rows, columns), float(energy[rank - 1])) for rank in ranks]


def best_energy(choices, budget):
    fitting = [choice for choice in itertools.product(*choices) if sum(each[1] for each in choice) <= budget]
    return max(sum(each[2] for each in choice) for choice in fitting)


def found(ranks, spectra, shapes):
    """Numbers and energy of what was chosen."""
    picked = [next(o for o in options(spectra[n], *shapes[n]) if o[0] == rank) for n, rank in ranks.items()]
    return sum(each[1] for each in picked), sum(each[2] for each in picked)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(2, 8), st.integers(2, 8)), min_size=1, max_size=3), st.integers(0, 99))
def test_ranks_for_size_are_best_at_the_sizes_of_whole_steps_and_never_too_large(sides, seed):
    shapes = {str(i): shape for i, shape in enumerate(sides)}
    spectra = {n: torch.linalg.svdvals(draw(*shape, seed=seed + int(n))) for n, shape in shapes.items()}
    choices = [options(spectra[n], *shapes[n]) for n in spectra]
    least, dense = (sum(each[i][1] for each in choices) for i in (0, -1))
    for price in (0.1, 0.02, 0.01, 0.005, 0.001):  # of a number, in energy: what pays is best for the numbers it holds
        paying = [max(each, key=lambda option: option[2] - price * option[1]) for each in choices]
        budget = sum(each[1] for each in paying)
        used, energy = found(ranks_for_size(spectra, shapes, budget), spectra, shapes)
        assert used <= budget
        assert energy == pytest.approx(best_energy(choices, budget), abs=1e-9)
    longest = max(rows * columns for rows, columns in sides)
    for budget in range(least, dense + 1, 23):
        used, energy = found(ranks_for_size(spectra, shapes, budget), spectra, shapes)
        assert used <= budget
        assert energy >= best_energy(choices, max(least, budget - longest)) - 1e-9
    assert ranks_for_size(spectra, shapes, dense) == {n: min(shape) for n, shape in shapes.items()}


def test_ranks_for_size_of_equal_matrices_are_the_best_for_any_budget():
    """Below the break-even rank, where every step costs the same."""
    shapes = dict.fromkeys("ab", (8, 8))
    spectra = {n: torch.linalg.svdvals(draw(8, 8, seed=i)) for i, n in enumerate("ab")}
    spectra["b"][0] *= 3
    choices = [options(spectra[n], 8, 8)[:-1] for n in "ab"]
    for budget in range(32, 2 * 64 - 48):
        choice = ranks_for_size(spectra, shapes, budget)
        if max(choice.values()) < 8:
            assert found(choice, spectra, shapes)[1] == pytest.approx(best_energy(choices, budget))
    assert ranks_for_size(spectra, shapes, 48) == {"a": 2, "b": 1}


def test_ranks_for_size_by_hand():
    """Relative to its own energy a matrix counts the same at any scale; ranks that bring nothing are not taken."""
    spectra = {"a": torch.tensor([2.0, 1.0, 0.0, 0.0]), "b": torch.tensor([100.0, 100.0, 100.0, 100.0])}
    shapes = {"a": (4, 12), "b": (4, 12)}  # 16 numbers a rank, 48 dense, break-even at 3
    for budget, ranks in ((32, (1, 1)), (48, (1, 2)), (63, (1, 2)), (64, (1, 4)), (80, (2, 4)), (999, (2, 4))):
        assert ranks_for_size(spectra, shapes, budget) == dict(zip("ab", ranks, strict=True)), budget


def pair(bias=True, dtype=torch.float64):
    torch.manual_seed(1)
    layer = LowRankLinear(6, 9, 4, bias).to(dtype)
    dense = nn.Linear(6, 9, bias, dtype=dtype)
    dense.weight.data = layer.weight.detach()
    if bias:
        dense.bias.data = layer.bias.detach().clone()
    return layer, dense


@pytest.mark.parametrize("bias", [True, False])
def test_the_layer_computes_what_the_dense_one_does(bias):
    layer, dense = pair(bias)
    x, y = draw(3, 5, 6).requires_grad_(), draw(3, 5, 6).requires_grad_()
    layer(x).square().sum().backward()
    dense(y).square().sum().backward()
    torch.testing.assert_close(layer(x), dense(y))
    torch.testing.assert_close(x.grad, y.grad)
    up, down = layer.up.weight, layer.down.weight
    torch.testing.assert_close(up.grad, dense.weight.grad @ down.t())
    torch.testing.assert_close(down.grad, up.t() @ dense.weight.grad)
    assert (layer.bias is None) if not bias else torch.allclose(layer.bias.grad, dense.bias.grad)
    assert torch.autograd.gradcheck(lambda t: F.linear(t, layer.weight, layer.bias), (x.detach().requires_grad_(),))


def test_the_start_has_the_variance_asked_for():
    torch.manual_seed(1)
    layer = LowRankLinear(256, 512, 64)
    assert layer.weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.02)
    assert layer.bias.abs().max() <= 1 / 16
    torch.testing.assert_close(layer.down.weight @ layer.down.weight.t(), torch.eye(64), rtol=0, atol=1e-5)
    assert LowRankLinear(300, 200, 20, std=0.7).weight.std().item() == pytest.approx(0.7, rel=0.03)
    assert layer.multiply_adds == 64 * (256 + 512)
    assert sum(p.numel() for p in layer.parameters()) == 64 * (256 + 512) + 512
    assert str(layer).startswith("LowRankLinear(\n  in_features=256, out_features=512, rank=64")


def test_a_dense_state_loads_as_its_approximation_with_its_bias():
    dense = nn.Linear(6, 9)
    layer = LowRankLinear(6, 9, 4)
    model, plain = nn.Sequential(layer), nn.Sequential(dense)
    model.load_state_dict(plain.state_dict(), strict=True)
    assert torch.equal(layer.bias, dense.bias)
    tail = torch.linalg.svdvals(dense.weight.detach())
    assert relative_error(layer, dense.weight) == pytest.approx(float(tail[4:].norm() / tail.norm()), rel=1e-5)
    again = nn.Sequential(LowRankLinear(6, 9, 4))
    again.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(again(torch.ones(6)), model(torch.ones(6)))
    for other in (LowRankLinear(6, 9, 4, bias=False), LowRankLinear(9, 6, 4), LowRankLinear(6, 9, 3)):
        with pytest.raises(RuntimeError):
            other.load_state_dict(layer.state_dict() if other.rank == 3 else dense.state_dict(), strict=True)


def test_ranks_that_no_weight_has_are_refused():
    for rank in (0, 7):
        with pytest.raises(ConfigError, match=rf"rank: must be in \[1, 6\] for 6 -> 9 features, got {rank}"):
            LowRankLinear(6, 9, rank)


def test_autocast():
    layer, dense = pair(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(draw(4, 6, dtype=torch.float32))
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), dense(draw(4, 6, dtype=torch.float32)), rtol=0.02, atol=0.02)
