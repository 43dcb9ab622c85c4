"""The projections between a student's weights and its teacher's, learned with them and discarded afterwards."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.functional.losses.projection_losses import Axes, WeightPair, down_loss, up_loss

DIRECTIONS = ("up", "down", "both")


class ProjectionLosses(NamedTuple):
    """Sums over all pairs of matrices, scalars in float32 (float64 for float64); 0 for a direction that is off."""

    down: Tensor
    up: Tensor

    @property
    def total(self) -> Tensor:
        """L_p, with equal weights of the two."""
        return self.down + self.up


class SharedProjections(nn.Module):
    """U (d_s, d_t) and V (d_t, d_s) for each kind of axis, shared by all layers (arXiv:1909.11687).

    Losses: :mod:`fairseq_compress.functional.losses.projection_losses`. ``down`` uses U of the kinds of output axes
    and V of those of input axes, ``up`` V of outputs and U of inputs, ``both`` the same U and V in both directions.
    Unused projections do not exist, so every parameter gets a gradient.

    Initially, with d_s <= d_t the rows of U are random and orthonormal and V = Uᵀ; with d_s > d_t the rows of V are and
    U = Vᵀ. It is a child of the criterion, with which fairseq trains, saves and resumes it. Keys of its state are
    ``u.KIND`` and ``v.KIND``, spaces as underscores: ``u.encoder_FFN_width``.

    ``sizes`` are kind of axis -> (d_s, d_t), ``axes`` the kinds of (output, input) of the matrices; by default all.
    """

    def __init__(
        self, sizes: Mapping[str, tuple[int, int]], direction: str, axes: Collection[Axes] | None = None
    ) -> None:
        super().__init__()
        self.sizes, self.direction = dict(sizes), direction
        self.u, self.v = nn.ParameterDict(), nn.ParameterDict()
        sides: list[set[str]] = [set(sizes), set(sizes)]
        if axes is not None:
            sides = [{pair[side] for pair in axes} for side in (0, 1)]
        self._down, self._up = direction != "up", direction != "down"
        of_u, of_v = set[str](), set[str]()
        for used, left, right in ((self._down, of_u, of_v), (self._up, of_v, of_u)):
            left |= sides[0] if used else set()
            right |= sides[1] if used else set()
        for kind, (student, teacher) in sizes.items():
            rows = nn.init.orthogonal_(torch.empty(min(student, teacher), max(student, teacher)))
            u = rows if student <= teacher else rows.t()
            if kind in of_u:
                self.u[_key(kind)] = nn.Parameter(u.contiguous())
            if kind in of_v:
                self.v[_key(kind)] = nn.Parameter(u.t().clone(memory_format=torch.contiguous_format))

    def loss(self, pairs: Iterable[WeightPair]) -> ProjectionLosses:
        """Σ ‖U_o θ_t V_i - θ_s‖² and Σ ‖θ_t - V_o θ_s U_i‖² over the pairs, with gradients to all matrices."""
        down, up = [], []
        for axes, student, teacher in pairs:
            if self._down:
                down.append(down_loss(student, teacher, self.u[_key(axes[0])], self.v[_key(axes[1])]))
            if self._up:
                up.append(up_loss(student, teacher, self.v[_key(axes[0])], self.u[_key(axes[1])]))
        nothing = torch.zeros_like((down or up)[0])
        return ProjectionLosses(sum(down, start=nothing), sum(up, start=nothing))

    def extra_repr(self) -> str:
        sizes = [f"{kind}: {student} of {teacher}" for kind, (student, teacher) in self.sizes.items()]
        return ", ".join([f"direction={self.direction}", *sizes])


def _key(kind: str) -> str:
    return kind.replace(" ", "_")
