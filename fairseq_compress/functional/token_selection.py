"""Which tokens a teacher is asked about: selective distillation (arXiv:2105.12967)."""

import torch
from torch import Tensor


def hardest(nll: Tensor, kept: Tensor, rate: float) -> Tensor:
    """The ``rate`` of the kept tokens with the largest -log p(y), rounded down, at least one; of equal ones the first.

    Args:
        nll: (N,), of the student.
        kept: (N,), bool, the tokens that are not padding.

    Returns:
        (N,), bool.
    """
    places = kept.nonzero().squeeze(1)
    selected = torch.zeros_like(kept)
    if len(places):
        order = nll[places].sort(descending=True, stable=True).indices
        selected[places[order[: max(1, int(rate * len(places)))]]] = True
    return selected


def above(nll: Tensor, kept: Tensor, rate: float, queue: Tensor) -> Tensor:
    """The kept tokens whose -log p(y) is at least the least of the ``rate`` largest in ``queue``; (N,), bool."""
    if not len(queue):
        return kept.clone()
    threshold = queue.topk(max(1, int(rate * len(queue)))).values[-1]
    return kept & (nll >= threshold.to(nll.device))


def pushed(queue: Tensor, values: Tensor, size: int) -> Tensor:
    """A queue, first in first out, of the last ``size`` values."""
    return torch.cat([queue, values.detach().to(queue)])[-size:]
