r"""Truncated SVD of a matrix, and the ranks of many matrices within one budget.

With :math:`W = U S V^T` (O, I) the product of the factors :math:`U_r S_r^{1/2}` (O, r) and :math:`S_r^{1/2} V_r^T`
(r, I) is the closest matrix of rank r (Eckart and Young, 1936); what it misses is
:math:`\|W - \hat W\|^2 = \sum_{i>r} s_i^2`. The energy of r ranks is the part that is kept,
:math:`\sum_{i \le r} s_i^2 / \sum_i s_i^2`.
"""

import heapq
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

GRAM_RATIO = 4  # how much longer than wide a matrix is from which on its Gram matrix is decomposed in its place


def truncated_svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    r"""The factors of the closest matrix of rank ``rank``; each has the root of the singular values.

    Computed in float64. A matrix much longer than wide, such as an embedding table, is projected on the leading
    eigenvectors of its Gram matrix, :math:`W V_r V_r^T = U_r S_r V_r^T`, with an additional error of at most
    :math:`10^{-8} \|W\|`. The factors are unique: in each row of the second factor (for a wide W each column of the
    first) the entry of largest magnitude is positive. Returns (O, r) and (r, I) for W (O, I), in its type.
    """
    _check_weight(weight)
    if not 1 <= rank <= min(weight.shape):
        raise ValueError(f"rank: must be from 1 to {min(weight.shape)}, got {rank}")
    wide = weight.size(0) < weight.size(1)
    exact = weight.double()
    left, right = _factors(exact.t() if wide else exact, rank)
    up, down = (right.t(), left.t()) if wide else (left, right)
    return up.to(weight.dtype).contiguous(), down.to(weight.dtype).contiguous()


def singular_values(weight: Tensor) -> Tensor:
    """All min(O, I) singular values of W (O, I), descending, in float64; see :func:`truncated_svd` for how exact."""
    _check_weight(weight)
    exact = weight.double()
    tall = exact.t() if exact.size(0) < exact.size(1) else exact
    if not _has_cheap_gram(tall):
        return torch.linalg.svdvals(tall)
    return torch.linalg.eigvalsh(tall.t() @ tall).flip(0).clamp_min(0.0).sqrt()


def rank_for_energy(values: Tensor, energy: float) -> int:
    r"""The smallest r with :math:`\sum_{i \le r} s_i^2 \ge energy \cdot \sum_i s_i^2`; 1 for zeros.

    ``values`` are singular values (n,), descending; ``energy`` is in (0, 1].
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy: must be over 0 and at most 1, got {energy}")
    kept = values.double().square().cumsum(0)
    return min(int((kept < energy * kept[-1]).sum()) + 1, len(values))


def break_even_rank(rows: int, columns: int) -> int:
    """The smallest rank whose factors hold no fewer numbers than the matrix: r · (O + I) >= O · I."""
    return -(-rows * columns // (rows + columns))


def stored_numbers(rank: int, rows: int, columns: int) -> int:
    """Numbers of a matrix at a rank: those of its factors, or its own from the break-even rank on."""
    return min(rank * (rows + columns), rows * columns)


def ranks_for_size(spectra: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]], budget: int) -> dict[str, int]:
    r"""Ranks of high energy, summed over matrices, whose factors hold at most ``budget`` numbers: a greedy choice.

    All begin at rank 1. Then the step with the most energy for each number is taken, as long as one fits: one more
    rank, :math:`s_{r+1}^2 / \sum_i s_i^2` for O + I numbers, or the missing energy for the numbers up to the dense
    matrix of O · I numbers and rank min(O, I); no other matrix reaches its break-even rank. The gains of a matrix
    decrease, so the choice is optimal while every step fits, and afterwards misses at most the energy of one step.

    Args:
        spectra: singular values by the names of matrices, (min(O, I),) each, descending.
        shapes: (O, I) by the same names.
        budget: numbers that all factors and dense matrices may hold together.
    """
    least = sum(stored_numbers(1, *shapes[name]) for name in spectra)
    if budget < least:
        raise ValueError(f"budget: must be at least {least}, rank 1 of all matrices, got {budget}")
    matrices = [_Gains(values, *shapes[name]) for name, values in spectra.items()]
    ranks = [matrix.least_rank for matrix in matrices]
    heap = [(-step.worth, i, step) for i, matrix in enumerate(matrices) for step in matrix.best_step(ranks[i])]
    heapq.heapify(heap)
    left = budget - least
    while heap:
        _, i, step = heapq.heappop(heap)
        fits = step.cost <= left
        if fits:
            ranks[i], left = step.rank, left - step.cost
        # A dense matrix that does not fit never will: what is left falls as fast as the numbers up to it.
        if fits or step.rank == matrices[i].full_rank:
            for following in matrices[i].best_step(ranks[i], dense=fits):
                heapq.heappush(heap, (-following.worth, i, following))
    return dict(zip(spectra, ranks, strict=True))


class _Step(NamedTuple):
    """A larger choice for a matrix."""

    worth: float
    """Energy gained for each number more."""
    rank: int
    cost: int
    """Numbers more than before."""


class _Gains:
    """What ranks of one matrix cost and gain."""

    def __init__(self, values: Tensor, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        squares = values.double().square()
        shares = squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny)
        self.gains = shares.tolist()
        self.missing = [*shares.flip(0).cumsum(0).flip(0).tolist(), 0.0]  # by ranks taken
        self.full_rank = min(rows, columns)
        self.break_even = break_even_rank(rows, columns)
        self.least_rank = 1 if self.break_even > 1 else self.full_rank

    def best_step(self, rank: int, dense: bool = True) -> list[_Step]:
        """The step worth most: one rank more, where no dense matrix is smaller, or the dense matrix; or none."""
        steps = []
        if rank + 1 < self.break_even and self.gains[rank] > 0:
            cost = self.rows + self.columns
            steps.append(_Step(self.gains[rank] / cost, rank + 1, cost))
        if dense and rank < self.full_rank and self.missing[rank] > 0:
            cost = self.rows * self.columns - stored_numbers(rank, self.rows, self.columns)
            steps.append(_Step(self.missing[rank] / cost, self.full_rank, cost))
        return [max(steps)] if steps else []


def _factors(tall: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors (O, r) and (r, I) of W (O, I) with O >= I, in float64."""
    if _has_cheap_gram(tall):
        directions = torch.linalg.eigh(tall.t() @ tall)[1].flip(1)[:, :rank]  # eigenvalues ascend
    else:
        directions = torch.linalg.svd(tall, full_matrices=False)[2][:rank].t()
    left = tall @ directions  # U S; rows of zeros stay exactly that
    # The sign of a singular vector is arbitrary.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    roots = left.norm(dim=0).sqrt()
    inverse = torch.where(roots > 0, roots.reciprocal(), 0.0)
    return left * signs * inverse, (directions * signs * roots).t()


def _has_cheap_gram(tall: Tensor) -> bool:
    return tall.size(0) >= GRAM_RATIO * tall.size(1)


def _check_weight(weight: Tensor) -> None:
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"weight: must be a matrix of floating type, got {tuple(weight.shape)} of {weight.dtype}")
    if not torch.isfinite(weight).all():
        wrong = int((~torch.isfinite(weight)).sum())
        raise ValueError(f"weight: must be finite, got {wrong} entries that are not")
