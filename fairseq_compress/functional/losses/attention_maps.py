"""Attention maps of a student against those of a teacher, where both may have any number of heads.

Shapes: B sentences, H heads, T queries, S keys, D width of a head. A map is softmax(q kᵀ / √D) over the keys that a
query may see, before dropout. Logarithms of maps (B, H, T, S) are in float32, or float64 for float64, and 0 at
forbidden keys, where maps are zero (:func:`maps_of`): so every sum and product is finite.
"""

import torch
from torch import Tensor

from fairseq_compress.functional.losses.layer_losses import compute_type


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

    ``query`` (T, B, H · D) and ``key`` (S, B, H · D) are projected and not scaled; see :func:`forbidden_keys`.
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
    """
    if logarithms.size(1) % heads:
        raise ValueError(f"heads must divide the {logarithms.size(1)} heads of the maps, got {heads}")
    group = logarithms.size(1) // heads
    if group == 1:
        return logarithms
    grouped = logarithms.unflatten(1, (heads, group))
    return grouped.logsumexp(2) - torch.tensor(group, dtype=logarithms.dtype, device=logarithms.device).log()


def map_divergence(teacher: Tensor, student: Tensor, query_padding: Tensor) -> Tensor:
    r"""Σ_queries 1/H Σ_heads KL(A_t ‖ A_s), from log-maps (B, H, T, S) of teacher and student (arXiv:2004.02984).

    ``query_padding`` is (B, T), true at padding; such a query counts for nothing.
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


def aligned_divergence(teacher: Tensor, student: Tensor, counted: Tensor) -> Tensor:
    r"""The loss of align-to-distill (arXiv:2403.01479) for the maps of one kind of attention:

        Σ_sentences Σ_o KL(σ(A_o) ‖ σ(Ã_o)),    σ(A) = softmax over all T · S entries of a map,
        Ã_o = Σ_h W_oh A_h + b_o, a pointwise convolution of the student's maps

    A sum over sentences and the teacher's heads, divided by nothing. As in the official code, A holds probabilities,
    which σ takes as scores, a decoder's zeros at later keys among them; b does not change the loss, since σ is
    invariant to what is added to a whole map. The official code also counts padded queries and keys, and drops entries
    of the student's maps by its attention dropout. Here padding is excluded, so that a sentence has the loss that the
    official code gives it alone, and maps are taken before dropout.

    Args:
        teacher: A (B, O, T, S) of :func:`maps_of`, one map for each head of the teacher.
        student: Ã (B, O, T, S).
        counted: (B, T, S), true where neither the query nor the key is padding.
    """
    if teacher.shape != student.shape or counted.shape != (student.size(0), *student.shape[2:]):
        raise ValueError(
            f"maps must be (B, O, T, S) and counted (B, T, S), got a teacher {tuple(teacher.shape)}, a student "
            f"{tuple(student.shape)} and {tuple(counted.shape)}"
        )
    ignored = ~counted[:, None].flatten(2)
    log_t, log_s = (_log_softmax(maps.to(student.dtype).flatten(2), ignored) for maps in (teacher, student))
    # At ignored entries: exp(0) · (0 - 0)
    return (log_t.exp() * (log_t - log_s)).sum()


def _log_softmax(scores: Tensor, forbidden: Tensor) -> Tensor:
    # The smallest number and not -inf: a query that may see nothing gets finite values, and finite gradients.
    scores = scores.masked_fill(forbidden, torch.finfo(scores.dtype).min)
    return torch.log_softmax(scores, dim=-1).masked_fill(forbidden, 0.0)
