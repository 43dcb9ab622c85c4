r"""How far a student's weights are from its teacher's, through projections that all layers share (arXiv:1909.11687).

For a student's matrix θ_s (o_s, i_s) and the teacher's θ_t (o_t, i_t), with Frobenius norms:

    down = ‖U_o θ_t V_i - θ_s‖²        up = ‖θ_t - V_o θ_s U_i‖²
    U (d_s, d_t), V (d_t, d_s)

In the paper every axis is as wide as the model, so there is one U and one V. Here there is one pair (U, V) for each
kind of axis (the widths of encoder and decoder, FFN units, heads · head width), shared by all matrices of all layers,
also where the sizes of student and teacher are equal. U_o and V_o belong to the kind of the output axis of a matrix,
U_i and V_i to that of its input axis. Matrices are stored (outputs, inputs).

Losses are computed in float32, under autocast too, or in float64 for float64. Gradients go to both matrices and to the
projections.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

Axes = tuple[str, str]
"""The kinds of the output and of the input axis of a matrix."""


class WeightPair(NamedTuple):
    """A matrix of the student and the one of the teacher that it is compared with."""

    axes: Axes
    student: Tensor
    """θ_s (o_s, i_s)"""
    teacher: Tensor
    """θ_t (o_t, i_t)"""


def down_loss(weight_s: Tensor, weight_t: Tensor, u_out: Tensor, v_in: Tensor) -> Tensor:
    """‖U_o θ_t V_i - θ_s‖² (arXiv:1909.11687), a scalar: the teacher's matrix in the student's size.

    Args:
        weight_s: θ_s (o_s, i_s).
        weight_t: θ_t (o_t, i_t).
        u_out: U_o (o_s, o_t).
        v_in: V_i (i_t, i_s).
    """
    return _squared_distance(weight_s, u_out, weight_t, v_in, ("weight_s", "u_out", "weight_t", "v_in"))


def up_loss(weight_s: Tensor, weight_t: Tensor, v_out: Tensor, u_in: Tensor) -> Tensor:
    """‖θ_t - V_o θ_s U_i‖² (arXiv:1909.11687), a scalar: the student's matrix in the teacher's size.

    Args:
        weight_s: θ_s (o_s, i_s).
        weight_t: θ_t (o_t, i_t).
        v_out: V_o (o_t, o_s).
        u_in: U_i (i_s, i_t).
    """
    return _squared_distance(weight_t, v_out, weight_s, u_in, ("weight_t", "v_out", "weight_s", "u_in"))


def _squared_distance(
    goal: Tensor, left: Tensor, middle: Tensor, right: Tensor, names: tuple[str, str, str, str]
) -> Tensor:
    """‖goal - left · middle · right‖²; ``names`` are those of the four, for messages."""
    given = (goal, left, middle, right)
    shapes = [tuple(matrix.shape) for matrix in given]
    if any(len(shape) != 2 for shape in shapes) or (shapes[1], shapes[3]) != (
        (shapes[0][0], shapes[2][0]),
        (shapes[2][1], shapes[0][1]),
    ):
        got = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        raise ValueError(f"{names[0]} must be of the shape of {' @ '.join(names[1:])}, got {got}")
    dtype = functools.reduce(torch.promote_types, (matrix.dtype for matrix in given), torch.float32)
    with torch.autocast(goal.device.type, enabled=False):
        # In the cheaper order: in a feed-forward network one side is much wider than the other.
        product = torch.linalg.multi_dot([matrix.to(dtype) for matrix in (left, middle, right)])
        return (goal.to(dtype) - product).square().sum()
