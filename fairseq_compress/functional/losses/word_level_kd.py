r"""Word-level knowledge distillation, fused with label-smoothed cross-entropy and computed chunk by chunk.

Over the target tokens n that are not padding, with student logits z, teachers m with logits z^m, V entries,
target y, temperature T and weights a, b (Hinton et al. 2015, arXiv:1503.02531; Kim and Rush 2016, arXiv:1606.07947):

    p = softmax(z),  p_T = softmax(z / T),  q_T = mean_m softmax(z^m / T)
    gold = Σ_n (1 - ε - ε_i) · (-log p_y) + ε_i · Σ_v (-log p_v),     ε_i = ε / (V - 1)   (fairseq's label smoothing)
    kd   = Σ_n w_n · (T² · D(q_T, p_T) + R(q_T, p)),     D = KL(q_T ‖ p_T) or another, w_n a weight of the token
    loss = a · gold + b · kd

    ∂loss/∂z = a · (p - (1 - ε - ε_i) · onehot(y) - ε_i) + b · T · w_n · (p_T - q_T)     with D = KL

Other divergences, and the ranking loss R, by default 0: :class:`~.divergences.Divergence`. The mean over teachers is a
mean of probabilities (Freitag et al. 2017, arXiv:1702.01802). A cached teacher gives the k largest entries of q_T and
the tail mass; KL is then over k + 1 entries, see :class:`~.divergences.Truncated`.

A naive version allocates seven or more matrices of (N, V), this one the gradient and a few chunks of rows, or from
hidden states no such matrix: see :mod:`fairseq_compress.functional.losses.chunks`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.functional.losses.chunks import Job, Rows, sum_rows
from fairseq_compress.functional.losses.divergences import (
    Divergence,
    Truncated,
    forward_kl,
    jensen_shannon,
    ranking_loss,
    reverse_kl,
    teacher_probabilities,
)
from fairseq_compress.functional.losses.label_smoothed import Gold, check_gold, gold_term, smoothing_weights
from fairseq_compress.functional.losses.outputs import (
    Output,
    Teachers,
    TopK,
    check_output,
    check_rows,
    check_top_k,
    shape_of,
)

FORWARD_KL = Divergence()


class WordLevelKDLoss(NamedTuple):
    """Sums over the tokens that are not padding, in nats. Only ``loss`` carries a gradient."""

    loss: Tensor
    """a · gold + b · Σ_n w_n (T² · D + R), a scalar."""
    gold: Tensor
    """Label-smoothed cross-entropy with the reference."""
    nll: Tensor
    """Plain cross-entropy with the reference; its mean gives the perplexity."""
    kd: Tensor
    """Σ_n w_n (D + R): the divergence from the teacher at temperature T without the factor T², and the ranking loss."""
    agreement: Tensor
    """Number of tokens where student and teacher have the same most probable entry."""


def word_level_kd_loss(
    student: Output,
    teachers: Teachers,
    target: Tensor,
    *,
    temperature: float = 1.0,
    gold_weight: float = 0.5,
    kd_weight: float = 0.5,
    divergence: Divergence = FORWARD_KL,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    padding_idx: int = 1,
    chunk_rows: int | None = None,
) -> WordLevelKDLoss:
    """The fused loss of this module's docstring; backward can run once only.

    Args:
        student: logits (N, V), or the hidden states and the output matrix that they are made of. Any floating type;
            computed in float32 (float64 for float64).
        teachers: one output for each live teacher, as the student's, or the :class:`TopK` of a cached one; no gradient
            flows into them.
        target: (N,), int64; rows whose target is ``padding_idx`` count for nothing and get a zero gradient.
        gold_weight: a.
        kd_weight: b.
        divergence: D; a cached teacher knows KL(q ‖ p) only.
        weights: (N,), w of each token; without a gradient.
        chunk_rows: tokens computed at a time; by default as many as fit the processor's cache.
    """
    check_output("student", student)
    shape = shape_of(student)
    check_gold(target, shape[0], label_smoothing)
    _check_teachers(teachers, shape)
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    for name, weight in (("gold_weight", gold_weight), ("kd_weight", kd_weight)):
        if not weight >= 0:
            raise ValueError(f"{name} must be at least 0, got {weight}")
    divergence.check()
    if isinstance(teachers, TopK) and divergence != FORWARD_KL:
        raise ValueError(f"divergence must be forward_kl without ranking for a cached teacher, got {divergence}")
    if weights is not None:
        check_rows("weights", weights, shape[0])
    row_loss = _WordLevelKD(temperature, gold_weight, kd_weight, divergence, label_smoothing)
    return WordLevelKDLoss(*sum_rows(Job(row_loss, teachers, target, weights, padding_idx, chunk_rows), student))


def _check_teachers(teachers: Teachers, shape: tuple[int, int]) -> None:
    if isinstance(teachers, TopK):
        return check_top_k("teachers", teachers, shape)
    if isinstance(teachers, Tensor) or not teachers:
        raise ValueError("teachers must hold at least one output, got none, or a tensor instead of a list")
    for teacher in teachers:
        check_output("teachers", teacher, shape)


class _Student(NamedTuple):
    """Some rows of the student."""

    gold: Gold
    p: Tensor
    """(R, V), softmax(z / T); where T is 1, the place of the gradient."""
    normalizer: Tensor
    """(R,), log Σ exp(z / T)"""


class _WordLevelKD:
    """The objective of one chunk of rows."""

    sums, scratch = 5, 3

    def __init__(
        self, temperature: float, gold_weight: float, kd_weight: float, divergence: Divergence, label_smoothing: float
    ) -> None:
        self.temperature, self.gold_weight, self.kd_weight = temperature, gold_weight, kd_weight
        self.divergence, self.label_smoothing = divergence, label_smoothing

    def __call__(self, rows: Rows, needs_gradient: bool) -> Sequence[Tensor]:
        student = self._student(rows)
        weight: Tensor | float = 1.0 if rows.weights is None else rows.weights
        ranking: Tensor | float = 0.0
        if isinstance(rows.teachers, TopK):
            divergence, agreement = self._cached(rows, rows.teachers, student, needs_gradient)
        else:
            divergence, ranking, agreement = self._live(rows, list(rows.teachers), student, needs_gradient)
        if needs_gradient:
            on_target, smoothed = smoothing_weights(self.label_smoothing, rows.logits.size(1))
            if smoothed > 0:
                rows.gradient.sub_(self.gold_weight * smoothed)
            at_target = rows.gradient.new_full((len(rows.target), 1), -self.gold_weight * on_target)
            rows.gradient.scatter_add_(1, rows.target[:, None], at_target)
        gold, kd = student.gold, self.temperature**2 * divergence + ranking
        loss = self.gold_weight * gold.loss + self.kd_weight * weight * kd
        return loss, gold.loss, gold.nll, weight * (divergence + ranking), agreement

    def _student(self, rows: Rows) -> _Student:
        """Fills ``rows.gradient`` with softmax(z)."""
        gold = gold_term(rows.logits, rows.target, self.label_smoothing, rows.gradient)
        if self.temperature == 1:
            return _Student(gold, rows.gradient, gold.normalizer)
        tempered, work = rows.scratch[0], rows.scratch[1]
        torch.softmax(torch.div(rows.logits, self.temperature, out=work), dim=-1, out=tempered)
        return _Student(gold, tempered, gold.best / self.temperature - tempered.amax(dim=-1).log())

    def _factor(self, rows: Rows) -> Tensor | float:
        """b · T · w, of the gradient by z / T: a number, or (R, 1)."""
        factor = self.kd_weight * self.temperature
        return factor if rows.weights is None else factor * rows.weights[:, None]

    def _live(
        self, rows: Rows, teachers: list[Tensor], student: _Student, needs_gradient: bool
    ) -> tuple[Tensor, Tensor | float, Tensor]:
        """Divergence, ranking loss and agreement; leaves the gradient of the whole loss but for the gold target."""
        kind, _, ranked = self.divergence
        (_, q, work), given = rows.scratch, (rows.logits, student.normalizer, self.temperature)
        teacher_probabilities(teachers, self.temperature, q, work)
        student_best, teacher_best = student.gold.best[:, None], q.amax(dim=-1, keepdim=True)
        agreement = ((rows.logits == student_best) & (q == teacher_best)).any(dim=-1)
        if kind == "forward_kl":
            divergence = forward_kl(teachers, *given, q, work)
        elif kind == "reverse_kl":
            divergence = reverse_kl(teachers, *given, q, student.p, work)
        else:
            divergence = jensen_shannon(self.divergence.beta, *given, q, student.p, work)
        of_p: Tensor | float = self.gold_weight
        if ranked:
            ranking, factor = ranking_loss(q, rows.gradient, ranked), self._factor(rows) / self.temperature
            of_p = of_p - factor * ranking.mean_slope[:, None]
        if needs_gradient and kind == "forward_kl":
            self._minus(rows, student, q, of_p)
        elif needs_gradient:
            self._times(rows, student, work, of_p)
        if not ranked:
            return divergence, 0.0, agreement
        if needs_gradient:
            rows.gradient.scatter_add_(1, ranking.ids, factor * ranking.values * ranking.slopes)
        return divergence, ranking.loss, agreement

    def _minus(self, rows: Rows, student: _Student, q: Tensor, of_p: Tensor | float) -> None:
        """``rows.gradient`` = ``of_p`` · p + b T w (p_T - q)."""
        gradient, factor = rows.gradient, self._factor(rows)
        if self.temperature == 1:
            of_p = of_p + factor
            if isinstance(of_p, Tensor) or of_p != 1:
                gradient.mul_(of_p)
            gradient.sub_(q.mul_(factor) if isinstance(factor, Tensor) or factor != 1 else q)
        else:
            gradient.mul_(of_p).add_(student.p.sub_(q).mul_(factor))

    def _times(self, rows: Rows, student: _Student, slope: Tensor, of_p: Tensor | float) -> None:
        """``rows.gradient`` = ``of_p`` · p + b T w p_T · F, F = ``slope``."""
        gradient, factor = rows.gradient, self._factor(rows)
        slope.mul_(factor)
        if self.temperature == 1:
            gradient.mul_(slope.add_(of_p))
        else:
            gradient.mul_(of_p).add_(student.p.mul_(slope))

    def _cached(self, rows: Rows, teacher: TopK, student: _Student, needs_gradient: bool) -> tuple[Tensor, Tensor]:
        """As :meth:`_live`, but every pass over V is one over the student's probabilities."""
        gradient, ids, factor = rows.gradient, teacher.ids, self._factor(rows)
        inside = gradient.gather(1, ids)
        truncated = Truncated(teacher, rows.logits, student.normalizer, self.temperature, student.p)
        agreement = rows.logits.gather(1, ids[:, :1]).squeeze(1) == student.gold.best
        if needs_gradient:
            outside_weight = factor * truncated.outside_factor[:, None]
            if self.temperature == 1:
                gradient.mul_(self.gold_weight + outside_weight)
            else:
                gradient.mul_(self.gold_weight).add_(student.p.mul_(outside_weight))
            if len(rare := truncated.underflown):
                gradient[rare] -= truncated.tail_gradient * (factor[rare] if isinstance(factor, Tensor) else factor)
            at_ids = self.gold_weight * inside + factor * (truncated.inside - teacher.probabilities)
            gradient.scatter_(1, ids, at_ids)
        return truncated.divergence, agreement
