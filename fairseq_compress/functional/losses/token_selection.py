"""Which tokens a teacher is asked about: selective distillation (arXiv:2105.12967)."""

import math

import torch
from torch import Tensor


def hardest(nll: Tensor, kept: Tensor, rate: float, among: Tensor | None = None) -> Tensor:
    """The kept tokens whose -log p(y) is at least the ⌈rate · n⌉-th largest of n values; equal ones are all selected.

    Args:
        nll: (N,), of the student.
        kept: (N,), bool, the tokens that are not padding.
        rate: over 0 and at most 1.
        among: (n,), the values that are ranked; by default those of the kept tokens.

    Returns:
        (N,), bool; all kept tokens if there are no values.
    """
    among = nll[kept] if among is None else among
    if not len(among):
        return kept.clone()
    threshold = among.topk(math.ceil(len(among) * rate)).values[-1]
    return kept & (nll >= threshold.to(nll.device))


def pushed(queue: Tensor, values: Tensor, size: int) -> Tensor:
    """A queue, first in first out, of the last ``size`` values."""
    return torch.cat([queue, values.detach().to(queue)])[-size:]
