"""Inputs of a loss: logits, hidden states with the output matrix, or the top k probabilities of a cached teacher."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Projected(NamedTuple):
    """Logits ``hidden @ weight.T + bias`` of shape (N, V) that are never formed as a whole."""

    hidden: Tensor
    """(N, C), the decoder's last hidden states; their type is the type of the matrix products."""
    weight: Tensor
    """(V, C), the (tied) output matrix, of any floating type."""
    bias: Tensor | None = None
    """(V,)"""


class TopK(NamedTuple):
    """A cached teacher: the k most probable entries of each row and the tail mass, not exactly normalized."""

    ids: Tensor
    """(N, k), integer, different from each other within a row."""
    probabilities: Tensor
    """(N, k), floating, descending, at the teacher's temperature."""
    rest: Tensor
    """(N,), floating, the mass outside of ``ids``."""


Output: TypeAlias = Tensor | Projected
Teachers: TypeAlias = Sequence[Output] | TopK


def shape_of(output: Output) -> tuple[int, int]:
    if isinstance(output, Projected):
        return output.hidden.size(0), output.weight.size(0)
    return output.size(0), output.size(1)


def check_output(name: str, output: Output, shape: tuple[int, int] | None = None) -> None:
    """Raise ``ValueError`` unless ``output`` has two dimensions that fit each other and, when given, ``shape``."""
    if isinstance(output, Projected):
        hidden, weight, bias = output
        if hidden.dim() != 2 or weight.dim() != 2 or hidden.size(1) != weight.size(1):
            raise ValueError(
                f"{name} must be hidden states (N, C) and a weight (V, C), "
                f"got {tuple(hidden.shape)} and {tuple(weight.shape)}"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(f"{name} must have a bias ({weight.size(0)},), got {tuple(bias.shape)}")
    elif output.dim() != 2:
        raise ValueError(f"{name} must be (N, V), got {tuple(output.shape)}")
    if shape is not None and shape_of(output) != shape:
        raise ValueError(f"{name} must be {shape} as the student's, got {shape_of(output)}")


def check_top_k(name: str, top_k: TopK, shape: tuple[int, int]) -> None:
    """Raise ``ValueError`` unless ``top_k`` has the rows of ``shape`` and at most its V entries."""
    ids, probabilities, rest = top_k
    rows, vocabulary = shape
    if ids.dim() != 2 or ids.size(0) != rows or not 1 <= ids.size(1) <= vocabulary:
        raise ValueError(f"{name} must have ids ({rows}, k) with k from 1 to {vocabulary}, got {tuple(ids.shape)}")
    if ids.is_floating_point() or probabilities.shape != ids.shape or rest.shape != ids.shape[:1]:
        raise ValueError(
            f"{name} must have integer ids, probabilities {tuple(ids.shape)} and a rest ({rows},), "
            f"got {ids.dtype}, {tuple(probabilities.shape)} and {tuple(rest.shape)}"
        )


def check_rows(name: str, values: Tensor, rows: int) -> None:
    """Raise ``ValueError`` unless ``values`` is (N,)."""
    if values.shape != (rows,):
        raise ValueError(f"{name} must be ({rows},), got {tuple(values.shape)}")


def full_logits(output: Output) -> Tensor:
    """Logits (N, V) in float32, in memory as a whole."""
    if isinstance(output, Projected):
        bias = None if output.bias is None else output.bias.float()
        return torch.nn.functional.linear(output.hidden.float(), output.weight.float(), bias)
    return output.float()


def tensor_of(output: Output) -> Tensor:
    """The logits or the hidden states."""
    return output.hidden if isinstance(output, Projected) else output


def compute_dtype(output: Output) -> torch.dtype:
    """The type that a loss is computed in: float64 for float64, else float32."""
    return torch.float64 if tensor_of(output).dtype == torch.float64 else torch.float32
