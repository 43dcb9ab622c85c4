"""The distillation term of some rows (R, V): from live teachers' logits, or from a cached teacher's top k.

``p`` is the student's softmax(z / T), ``normalizer`` its log Σ exp(z / T). Written for vectorized passes over rows in
the cache: on a CPU a batched matrix product costs five times what multiply and sum do.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from fairseq_compress.functional.losses.outputs import TopK

KINDS = ("forward_kl", "reverse_kl", "jsd")


class Divergence(NamedTuple):
    """How far the student p is from the teacher q.

    ``forward_kl``: KL(q ‖ p). ``reverse_kl``: KL(p ‖ q). ``jsd``: β KL(q ‖ m) + (1 - β) KL(p ‖ m) with
    m = β q + (1 - β) p (generalized distillation, arXiv:2306.13649). ``ranking`` = k > 0 adds the hinge loss on the
    order of the teacher's k best entries (TIE-KD, arXiv:2305.08096), see :func:`ranking_loss`: of the student's
    probabilities at temperature 1, and without the factor T² of a divergence, as published.
    """

    kind: str = "forward_kl"
    beta: float = 0.5
    ranking: int = 0

    def check(self) -> None:
        """Raise ``ValueError`` for an unknown kind or a number out of its range."""
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta must be in (0, 1), got {self.beta}")
        if self.ranking < 0:
            raise ValueError(f"ranking must be at least 0, got {self.ranking}")


def teacher_probabilities(teachers: list[Tensor], temperature: float, q: Tensor, work: Tensor) -> None:
    """Fills ``q`` with the mean over teachers of softmax(z / T)."""
    if len(teachers) == 1:
        torch.softmax(teachers[0] if temperature == 1 else torch.div(teachers[0], temperature, out=work), -1, out=q)
        return
    q.zero_()
    for teacher in teachers:
        torch.div(teacher, temperature, out=work)
        q += torch.softmax(work, dim=-1)
    q /= len(teachers)


def forward_kl(
    teachers: list[Tensor], student: Tensor, normalizer: Tensor, temperature: float, q: Tensor, work: Tensor
) -> Tensor:
    """KL(q ‖ p) of each row. With respect to z / T its gradient is p - q."""
    if len(teachers) == 1:
        # Σ q (log q - log p) with log q = z_t / T - c_t and log p = z_s / T - c_s; the difference first, for precision
        torch.sub(teachers[0], student, out=work)
        return work.mul_(q).sum(dim=-1) / temperature - _normalizer(teachers[0], temperature, q) + normalizer
    entropy = torch.special.entr(q).sum(dim=-1)
    return normalizer - torch.mul(q, student, out=work).sum(dim=-1) / temperature - entropy


def reverse_kl(
    teachers: list[Tensor], student: Tensor, normalizer: Tensor, temperature: float, q: Tensor, p: Tensor, work: Tensor
) -> Tensor:
    """KL(p ‖ q) of each row; fills ``work`` with F = log(p / q) - KL(p ‖ q). Its gradient is p · F."""
    if len(teachers) == 1:
        torch.sub(student, teachers[0], out=work).div_(temperature)
        work += (_normalizer(teachers[0], temperature, q) - normalizer)[:, None]
    else:
        torch.div(student, temperature, out=work).sub_(normalizer[:, None])
        work -= q.clamp_min(torch.finfo(q.dtype).tiny).log()
    divergence = (p * work).sum(dim=-1)
    work -= divergence[:, None]
    return divergence


def jensen_shannon(
    beta: float, student: Tensor, normalizer: Tensor, temperature: float, q: Tensor, p: Tensor, work: Tensor
) -> Tensor:
    """β KL(q ‖ m) + (1 - β) KL(p ‖ m), m = β q + (1 - β) p, of each row; its gradient is p · F.

    Fills ``work`` with F = (1 - β) · (log(p / m) - KL(p ‖ m)): the derivative by p is (1 - β) log(p / m), all else
    cancels.
    """
    log_m = torch.lerp(p, q, beta).clamp_min_(torch.finfo(q.dtype).tiny).log_()
    of_teacher = (torch.xlogy(q, q) - q * log_m).sum(dim=-1)
    torch.div(student, temperature, out=work).sub_(normalizer[:, None]).sub_(log_m)
    of_student = (p * work).sum(dim=-1)
    work.sub_(of_student[:, None]).mul_(1 - beta)
    return beta * of_teacher + (1 - beta) * of_student


class Ranking(NamedTuple):
    """The hinge loss of some rows (R,), and the terms of its gradient by z, p_i (g_i - Σ_j p_j g_j)."""

    loss: Tensor
    ids: Tensor
    """(R, 2k); the slopes of an entry that occurs twice add up."""
    slopes: Tensor
    """(R, 2k), ∂loss/∂p at ``ids``."""
    values: Tensor
    """(R, 2k), p at ``ids``."""

    @property
    def mean_slope(self) -> Tensor:
        """(R,), Σ_j p_j g_j."""
        return (self.values * self.slopes).sum(dim=-1)


def ranking_loss(q: Tensor, p: Tensor, k: int) -> Ranking:
    """The hierarchical ranking loss of TIE-KD (arXiv:2305.08096), without margin.

    With the teacher's k best entries i (i = 1 the best of all) and the student's own k best entries j:

        Σ_i max(0, p_i - p_1) + Σ_i Σ_{j: q_j < q_i} max(0, p_j - p_i)

    Of the teacher's probabilities ``q`` only the order counts; ``p`` are the student's, softmax(z).
    """
    k = min(k, q.size(-1))
    teacher_q, teacher_ids = q.topk(k, dim=-1)
    student_p, student_ids = p.topk(k, dim=-1)
    p_of_teacher, q_of_student = p.gather(-1, teacher_ids), q.gather(-1, student_ids)
    to_best = p_of_teacher - p_of_teacher[:, :1]
    to_other = student_p[:, None, :] - p_of_teacher[:, :, None]  # (R, i, j)
    wrong = (teacher_q[:, :, None] > q_of_student[:, None, :]) & (to_other > 0)
    of_best = (to_best > 0).to(p.dtype)
    of_pairs = wrong.to(p.dtype)
    slopes = of_best - of_pairs.sum(dim=2)
    slopes[:, 0] -= of_best.sum(dim=-1)
    return Ranking(
        to_best.clamp_min(0).sum(dim=-1) + (to_other * of_pairs).sum(dim=(1, 2)),
        torch.cat([teacher_ids, student_ids], dim=-1),
        torch.cat([slopes, of_pairs.sum(dim=1)], dim=-1),
        torch.cat([p_of_teacher, student_p], dim=-1),
    )


def _normalizer(teacher: Tensor, temperature: float, q: Tensor) -> Tensor:
    """log Σ exp(z_t / T), from the largest entries."""
    return teacher.amax(dim=-1) / temperature - q.amax(dim=-1).log()


class Truncated:
    r"""KL to a cached teacher: K its k most probable entries, q_r and p_r the tail masses of teacher and student.

        KL over k + 1 entries = Σ_{i in K} q_i log(q_i / p_i) + q_r log(q_r / p_r)

        ∂KL/∂(z_j / T) = p_j - q_j in K,    p_j - q_r · p_j / p_r outside

    p_r is summed outside of K, as one minus the sum inside would cancel. Where that sum underflows, log p_r is
    l - ``normalizer`` with l = log Σ_{j not in K} exp(z_j / T), and p_j / p_r is exp(z_j / T - l).
    """

    def __init__(self, teacher: TopK, student: Tensor, normalizer: Tensor, temperature: float, p: Tensor) -> None:
        """Clears the entries K of ``p``, whose values are kept in ``inside``."""
        ids, q, tail = teacher
        self.inside = p.gather(1, ids)
        p.scatter_(1, ids, 0.0)
        outside, limits = p.sum(dim=-1), torch.finfo(p.dtype)
        self.underflown = (outside < limits.tiny / limits.eps**2).nonzero().squeeze(1)
        """(U,), rows whose tail mass is too small for a sum of probabilities."""
        log_outside, share = outside.clamp_min(limits.tiny).log(), tail / outside.clamp_min(limits.tiny)
        if len(self.underflown):
            rows = self.underflown
            z = (student[rows] / temperature).scatter_(1, ids[rows], -torch.inf)
            tails = z.logsumexp(dim=-1)
            self.tail_gradient = tail[rows, None] * (z - tails[:, None]).exp().nan_to_num_(0.0)
            """(U, V), q_r p_j / p_r of these rows, zero in K."""
            # A tail of no entries has no mass: log of the smallest number, as if it had.
            log_outside[rows] = (tails - normalizer[rows]).nan_to_num_(neginf=math.log(limits.tiny))
            share[rows] = 0.0
        log_p = student.gather(1, ids).div_(temperature).sub_(normalizer[:, None])
        self.divergence = (torch.xlogy(q, q) - q * log_p).sum(dim=-1) + torch.xlogy(tail, tail) - tail * log_outside
        self.outside_factor = 1 - share
        """(R,), the gradient outside of K by p_j; less ``tail_gradient`` in the rows ``underflown``."""
