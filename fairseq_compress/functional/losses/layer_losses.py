"""Losses of a student's hidden states against those of a teacher.

Shapes: N positions that are not padding, C the width (the teacher's; a student of another width is mapped to it
first). Each loss is a sum over the N positions, computed in float32, or float64 for float64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-5  # of a layer norm


def unpadded(hidden: Tensor, padding: Tensor) -> Tensor:
    """The rows (N, C) of hidden states (T, B, C) whose position is not padding; ``padding`` (B, T), true at padding."""
    if hidden.dim() != 3 or padding.shape != (hidden.size(1), hidden.size(0)):
        raise ValueError(
            f"padding must be (B, T) for hidden states (T, B, C), got {tuple(padding.shape)} for {tuple(hidden.shape)}"
        )
    return hidden.transpose(0, 1)[~padding]


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The cosine part of DistilBERT's triple loss (arXiv:1910.01108), for last hidden states (N, C):

    Σ_n 1 - cos(s_n, t_n)
    """
    student, teacher = _alike(student, teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).sum()


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""MobileBERT's transfer of feature maps (arXiv:2004.02984), for outputs (N, C) of a pair of layers:

        Σ_n 1/C Σ_c (LN(s_n)_c - LN(t_n)_c)²,    LN(x) = (x - μ(x)) / √(σ²(x) + 1e-5)

    LN has no learned scale or shift; σ² divides by C.
    """
    student, teacher = _alike(student, teacher)
    width = student.shape[-1:]
    student, teacher = (F.layer_norm(x, width, eps=EPSILON) for x in (student, teacher))
    return (student - teacher).square().mean(1).sum()


def mean_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The mean that a layer norm removes (arXiv:2004.02984): Σ_n (μ(s_n) - μ(t_n))², for outputs (N, C)."""
    student, teacher = _alike(student, teacher)
    return (student.mean(1) - teacher.mean(1)).square().sum()


def variance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""The variance that a layer norm removes (arXiv:2004.02984): Σ_n abs(σ²(s_n) - σ²(t_n)), for outputs (N, C)."""
    student, teacher = _alike(student, teacher)
    return (student.var(1, correction=0) - teacher.var(1, correction=0)).abs().sum()


def compute_type(tensor: Tensor) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _alike(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"teacher must be (N, C) as the student, got {tuple(teacher.shape)} and a student {tuple(student.shape)}"
        )
    dtype = compute_type(student)
    return student.to(dtype), teacher.to(dtype)
