"""Guided alignment: the attention to the source learns given links (arXiv:1607.01628, 1909.02074).

    L = -Σ_(s, t) w_t · log 1/H Σ_h A_h(t, s)        w_t = 1 / number of links of target token t

over the links (s, t) of a batch, with the maps A_h of H heads. Equals fairseq's
``label_smoothed_cross_entropy_with_alignment``.
"""

import math

from torch import Tensor


def guided_alignment_loss(log_maps: Tensor, links: Tensor, weights: Tensor) -> Tensor:
    """The loss, summed over the links.

    Args:
        log_maps: logarithms of the maps ``(B, H, T, S)``.
        links: as fairseq collates them, ``(L, 2)``: places of source tokens in S, and of target tokens in B · T.
        weights: ``(L,)``.
    """
    mean = log_maps.logsumexp(dim=1) - math.log(log_maps.size(1))
    of_links = mean.flatten(0, 1)[links[:, 1], links[:, 0]]
    return -(of_links * weights.to(of_links.dtype)).sum()
