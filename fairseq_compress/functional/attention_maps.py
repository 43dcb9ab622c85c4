"""Attention maps of a student against those of a teacher, where both may have any number of heads.

Shapes: B sentences, H heads, T queries, S keys, D width of a head. A map is softmax(q kᵀ / √D) over the keys that a
query may see, "before dropout". Everything is computed with logarithms of maps (B, H, T, S), in float32, or float64 for
float64. They are 0 at forbidden keys, which no one reads as a probability of 1: there both maps are zero by
definition (:func:`maps_of`), and 0 keeps every sum and product finite.
"""

import torch
from torch import Tensor

from fairseq_compress.functional.layer_losses import compute_type


def forbidden_keys(key_padding: Tensor, causal: bool = False) -> Tensor:
    """True where a query must not look: (B, 1, 1, S), or (B, 1, S, S) where it must not see later keys either.

    ``key_padding`` is (B, S), true at padding.
    """
    forbidden = key_padding.bool()[:, None, None, :]
    if not causal:
        return forbidden
    keys = key_padding.size(1)
    later = torch.ones(keys, keys, dtype=torch.bool, device=key_padding.device).triu(1)
    return forbidden | later


def log_maps(query: Tensor, key: Tensor, heads: int, forbidden: Tensor) -> Tensor:
    """log softmax(q kᵀ / √D) over the keys that are allowed, (B, H, T, S), 0 at the others.

    Args:
        query: projected queries (T, B, H · D), not scaled.
        key: projected keys (S, B, H · D).
        heads: H.
        forbidden: from :func:`forbidden_keys`.

    Raises:
        ValueError: shapes do not fit.
    """
    if query.shape[1:] != key.shape[1:] or query.size(-1) % heads:
        raise ValueError(
            f"key must be (S, B, C) for queries (T, B, C) with C a multiple of {heads} heads, "
            f"got {tuple(key.shape)} for {tuple(query.shape)}"
        )
    q, k = (x.to(compute_type(query)).unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for x in (query, key))
    return _log_softmax(torch.matmul(q * q.size(-1) ** -0.5, k.transpose(-2, -1)), forbidden)


def maps_of(logarithms: Tensor, forbidden: Tensor) -> Tensor:
    """The maps (B, H, T, S) themselves: exactly zero at forbidden keys."""
    return logarithms.exp().masked_fill(forbidden, 0.0)


def group_heads(logarithms: Tensor, heads: int) -> Tensor:
    """Log of the means of maps of neighbouring heads: (B, H, T, S) -> (B, ``heads``, T, S).

    With g = H / ``heads``, map j is the mean of the maps j·g to j·g + g - 1; the identity for ``heads`` = H.

    Raises:
        ValueError: H is no multiple of ``heads``.
    """
    if logarithms.size(1) % heads:
        raise ValueError(f"heads must divide the {logarithms.size(1)} heads of the maps, got {heads}")
    group = logarithms.size(1) // heads
    if group == 1:
        return logarithms
    grouped = logarithms.unflatten(1, (heads, group))
    return grouped.logsumexp(2) - torch.tensor(group, dtype=logarithms.dtype, device=logarithms.device).log()


def mix_heads(logarithms: Tensor, weight: Tensor, forbidden: Tensor) -> Tensor:
    r"""A 1x1 convolution of log-maps (align-to-distill, arXiv:2403.01479): log softmax_s(Σ_h W_oh log A_h).

    A log-map is the raw scores less a number for each query, which this softmax takes away again. So it is a
    convolution of the scores, and the identity gives back the maps that went in.

    Args:
        logarithms: (B, H, T, S), of all heads of all layers.
        weight: W (O, H).
        forbidden: from :func:`forbidden_keys`.

    Returns:
        (B, O, T, S)
    """
    scores = torch.einsum("oh,bhts->bots", weight.to(logarithms.dtype), logarithms)
    return _log_softmax(scores, forbidden)


def map_divergence(teacher: Tensor, student: Tensor, query_padding: Tensor) -> Tensor:
    r"""Σ_queries 1/H Σ_heads KL(A_t ‖ A_s), from log-maps (B, H, T, S) of teacher and student (arXiv:2004.02984).

    ``query_padding`` is (B, T), true at padding; such a query counts for nothing.

    Raises:
        ValueError: shapes do not fit.
    """
    if teacher.shape != student.shape or query_padding.shape != (student.size(0), student.size(2)):
        raise ValueError(
            f"maps must be (B, H, T, S) and query_padding (B, T), got a teacher {tuple(teacher.shape)}, a student "
            f"{tuple(student.shape)} and {tuple(query_padding.shape)}"
        )
    teacher = teacher.to(student.dtype)
    # At forbidden keys: exp(0) · (0 - 0)
    each = (teacher.exp() * (teacher - student)).sum(dim=-1).mean(dim=1)
    return each.masked_fill(query_padding, 0.0).sum()


def _log_softmax(scores: Tensor, forbidden: Tensor) -> Tensor:
    # The smallest number and not -inf: a query that may see nothing gets finite values, and finite gradients.
    scores = scores.masked_fill(forbidden, torch.finfo(scores.dtype).min)
    return torch.log_softmax(scores, dim=-1).masked_fill(forbidden, 0.0)
