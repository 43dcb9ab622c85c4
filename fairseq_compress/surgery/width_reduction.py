r"""A matrix of a wide layer as one of a narrow layer: by leading slices, or by projection of the residual stream.

Every axis of a weight is reduced by its own rule, from n entries to m. With slices it keeps entries:
:math:`W_s = W_t[:m, :m']`. A residual stream of width n can be projected by P (n, m) instead, orthonormal columns, so
that :math:`h_s = P^T h_t`: a weight between two streams becomes :math:`P_{out}^T W_t P_{in}`, a bias
:math:`P^T \beta`, the gain of a layer norm :math:`diag(P^T diag(\gamma) P)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COPIED, SLICED, PROJECTED = "copied", "sliced", "projected (svd)"
KINDS = (COPIED, SLICED, PROJECTED)  # of what changes least to what changes most


@dataclass(frozen=True)
class Axis:
    """How an axis of n entries becomes one of m; with neither index nor directions it stays."""

    size: int
    """n"""
    index: Tensor | None = None
    """(m,) which entries are kept, int64."""
    directions: Tensor | None = None
    """P (n, m), float64."""

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        if self.directions is not None:
            return PROJECTED
        return COPIED if self.index is None else SLICED


def leading(size: int, kept: int) -> Axis:
    """The first ``kept`` of ``size`` entries."""
    return Axis(size) if kept == size else Axis(size, index=torch.arange(kept))


def leading_in_heads(heads: int, width: int, kept_heads: int, kept_width: int) -> Axis:
    """The first ``kept_width`` entries of each of the first ``kept_heads`` heads, on an axis of heads · width."""
    if (heads, width) == (kept_heads, kept_width):
        return Axis(heads * width)
    starts = torch.arange(kept_heads).unsqueeze(1) * width
    return Axis(heads * width, index=(starts + torch.arange(kept_width)).flatten())


def principal(table: Tensor, kept: int) -> Axis:
    r"""The axis of a stream, projected on the directions in which its embedding table has most energy.

    With E = U S Vᵀ, P is the first ``kept`` columns of V, so that E P = U S is the best approximation of the table
    of that rank. V are the eigenvectors of EᵀE, in float64. The entry of largest magnitude in each is positive: a
    singular vector has no sign of its own. fairseq multiplies embedded tokens by the root of the width, which is
    smaller then: the stream keeps its directions, and they weigh less against what the layers add.

    Args:
        table: E (V, n), floating.
        kept: m; for m = n the axis stays as it is.
    """
    size = table.size(1)
    if kept == size:
        return Axis(size)
    exact = table.double()
    _, vectors = torch.linalg.eigh(exact.t() @ exact)  # ascending
    directions = vectors.flip(1)[:, :kept]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return Axis(size, directions=directions * largest.sign())


def reduce_weight(weight: Tensor, axes: Sequence[Axis]) -> Tensor:
    """A weight or bias with every axis reduced by its rule; same type. Products are summed in float64.

    Args:
        weight: one axis of n entries for each of ``axes``.
    """
    reduced = weight
    for dim, axis in enumerate(axes):
        if axis.index is not None:
            reduced = reduced.index_select(dim, axis.index)
        elif axis.directions is not None:
            reduced = torch.tensordot(reduced.double(), axis.directions, dims=([dim], [0])).movedim(-1, dim)
    return reduced.to(weight.dtype).contiguous()


def reduce_gain(gain: Tensor, axis: Axis) -> Tensor:
    r"""The gain of a layer norm on a reduced axis: :math:`\gamma_s[j] = \sum_i P_{ij}^2 \gamma_i`, or its slice.

    Args:
        gain: γ (n,).
    """
    if axis.directions is None:
        return reduce_weight(gain, [axis])
    return (axis.directions.square().t() @ gain.double()).to(gain.dtype)
