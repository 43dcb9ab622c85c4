r"""Label-smoothed cross-entropy, fused: block by block, from logits or from hidden states.

Over the target tokens n that are not padding, with student logits z of V entries, target y, smoothing ε and optional
weights w (fairseq's label smoothing; Szegedy et al. 2016, arXiv:1512.00567):

    p = softmax(z)
    loss = Σ_n w · ((1 - ε - ε_i) · (-log p_y) + ε_i · Σ_v (-log p_v)),     ε_i = ε / (V - 1)

    ∂loss/∂z = w · (p - (1 - ε - ε_i) · onehot(y) - ε_i)
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.functional.losses.chunks import Job, Rows, sum_rows
from fairseq_compress.functional.losses.outputs import Output, check_output, check_rows, shape_of


class LabelSmoothedLoss(NamedTuple):
    """Sums over the tokens that are not padding, in nats. Only ``loss`` carries a gradient."""

    loss: Tensor
    """Label-smoothed cross-entropy, each token with its weight."""
    nll: Tensor
    """Plain cross-entropy, each token with its weight; unweighted, its mean gives the perplexity."""


def label_smoothed_loss(
    student: Output,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    padding_idx: int = 1,
    weights: Tensor | None = None,
    chunk_rows: int | None = None,
) -> LabelSmoothedLoss:
    """The loss of this module's docstring; backward can run once only.

    Args:
        student: logits (N, V), or the hidden states and the output matrix that they are made of. Any floating type;
            computed in float32 (float64 for float64).
        target: (N,), int64; rows whose target is ``padding_idx`` count for nothing and get a zero gradient.
        weights: (N,), one factor for each row; without a gradient.
        chunk_rows: tokens computed at a time; by default as many as fit the processor's cache.
    """
    check_output("student", student)
    check_gold(target, shape_of(student)[0], label_smoothing)
    if weights is not None:
        check_rows("weights", weights, shape_of(student)[0])
    job = Job(_LabelSmoothed(label_smoothing), (), target, weights, padding_idx, chunk_rows)
    return LabelSmoothedLoss(*sum_rows(job, student))


def check_gold(target: Tensor, rows: int, label_smoothing: float) -> None:
    """Raise ``ValueError`` unless ``target`` is (N,) and the smoothing in [0, 1)."""
    check_rows("target", target, rows)
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")


def smoothing_weights(label_smoothing: float, vocabulary: int) -> tuple[float, float]:
    """Weights of -log p_y and of -Σ_v log p_v in the gold term."""
    smoothed = label_smoothing / max(1, vocabulary - 1)
    return 1 - label_smoothing - smoothed, smoothed


class Gold(NamedTuple):
    """What the gold term leaves of each row (R,)."""

    loss: Tensor
    nll: Tensor
    best: Tensor
    """The largest logit."""
    normalizer: Tensor
    """log Σ_v exp z_v"""


def gold_term(logits: Tensor, target: Tensor, label_smoothing: float, probabilities: Tensor) -> Gold:
    """Label-smoothed cross-entropy of each row of ``logits`` (R, V); fills ``probabilities`` with softmax(z).

    Written for vectorized passes over rows in the cache: on a CPU ``argmax`` costs ten times what ``amax`` does.
    """
    best = logits.amax(dim=-1)
    torch.softmax(logits, dim=-1, out=probabilities)
    normalizer = best - probabilities.amax(dim=-1).log()
    nll = normalizer - logits.gather(1, target[:, None]).squeeze(1)
    on_target, smoothed = smoothing_weights(label_smoothing, logits.size(1))
    if label_smoothing == 0:
        return Gold(nll, nll, best, normalizer)
    others = logits.size(1) * normalizer - logits.sum(dim=-1)
    return Gold(on_target * nll + smoothed * others, nll, best, normalizer)


class _LabelSmoothed:
    sums, scratch = 2, 0

    def __init__(self, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(self, rows: Rows, needs_gradient: bool) -> Sequence[Tensor]:
        gold = gold_term(rows.logits, rows.target, self.label_smoothing, rows.gradient)
        if needs_gradient:
            self._to_gradient(rows)
        if rows.weights is None:
            return gold.loss, gold.nll
        return gold.loss * rows.weights, gold.nll * rows.weights

    def _to_gradient(self, rows: Rows) -> None:
        """``rows.gradient`` holds p."""
        gradient, weights = rows.gradient, rows.weights
        on_target, smoothed = smoothing_weights(self.label_smoothing, gradient.size(1))
        at_target = gradient.new_full((len(rows.target), 1), -on_target)
        if smoothed > 0:
            gradient.sub_(smoothed)
        if weights is not None:
            gradient.mul_(weights[:, None])
            at_target.mul_(weights[:, None])
        gradient.scatter_add_(1, rows.target[:, None], at_target)
