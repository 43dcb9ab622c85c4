r"""A weight with smaller axes: some entries of an axis, or its projection on fewer directions.

Each axis of n entries has its own rule. With an index of m entries :math:`W_s = W_t[I, J]`. A residual stream can be
projected by P (n, m), orthonormal columns, so that :math:`h_s = P^T h_t`: a weight between two streams becomes
:math:`P_{out}^T W_t P_{in}`, a bias :math:`P^T \beta`, the gain of a layer norm :math:`diag(P^T diag(\gamma) P)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COPIED, SLICED, PROJECTED = "copied", "sliced", "projected (svd)"
KINDS = (COPIED, SLICED, PROJECTED)  # by how much they change


@dataclass(frozen=True)
class Reduction:
    """How an axis of n entries becomes one of m; with neither index nor directions it stays."""

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


WHOLE = Reduction()


def blocks(kept: Sequence[int], width: int, kept_width: int | None = None) -> Reduction:
    """The first ``kept_width`` entries (default: all) of each of the blocks ``kept``, such as heads, of one width."""
    starts = torch.tensor(kept, dtype=torch.int64).unsqueeze(1) * width
    return Reduction(index=(starts + torch.arange(width if kept_width is None else kept_width)).flatten())


def leading(size: int, kept: int, heads: int = 1, kept_heads: int = 1) -> Reduction:
    """The first entries of each of the first heads, on an axis of heads · width."""
    if (size, heads) == (kept, kept_heads):
        return WHOLE
    return blocks(range(kept_heads), size // heads, kept // kept_heads)


def principal(table: Tensor, kept: int) -> Reduction:
    r"""The projection of a stream on the directions in which its embedding table has most energy.

    With E = U S Vᵀ (V, n), P is the first m = ``kept`` columns of V, so that E P = U S is the best approximation of the
    table of that rank. V are the eigenvectors of EᵀE, in float64, with a positive entry of largest magnitude.
    """
    if kept == table.size(1):
        return WHOLE
    exact = table.double()
    _, vectors = torch.linalg.eigh(exact.t() @ exact)  # ascending
    directions = vectors.flip(1)[:, :kept]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return Reduction(directions=directions * largest.sign())


def reduce_weight(weight: Tensor, axes: Sequence[Reduction]) -> Tensor:
    """A weight or bias with every axis reduced by its rule; same type. Products are summed in float64."""
    reduced = weight
    for dim, axis in enumerate(axes):
        if axis.index is not None:
            reduced = reduced.index_select(dim, axis.index.to(weight.device))
        elif axis.directions is not None:
            reduced = torch.tensordot(reduced.double(), axis.directions, dims=([dim], [0])).movedim(-1, dim)
    return reduced.to(weight.dtype).contiguous()


def reduce_gain(gain: Tensor, axis: Reduction) -> Tensor:
    r"""The gain of a layer norm on a reduced axis: :math:`\gamma_s[j] = \sum_i P_{ij}^2 \gamma_i`, or its slice."""
    if axis.directions is None:
        return reduce_weight(gain, [axis])
    return (axis.directions.square().t() @ gain.double()).to(gain.dtype)
