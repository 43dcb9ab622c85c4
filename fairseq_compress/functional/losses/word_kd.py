r"""Word-level knowledge distillation between two segmentations: each reference word against all others.

A teacher and a student with vocabularies of their own have no distribution in common, but each gives a probability to
each word of the reference: the product over the subwords of the word, in its own segmentation,

    log P(w) = Σ_{subwords g of w} log p(g | all subwords before)

The loss of a word is the KL divergence of the two outcomes {this word, any other}:

    d(w) = P_t log(P_t / P_s) + (1 - P_t) log((1 - P_t) / (1 - P_s))

It is a lower bound of word-level distillation (arXiv:1606.07947), the KL divergence of the distributions T and S over
all words, by the log-sum inequality Σ a_i log(a_i / b_i) >= (Σ a_i) log(Σ a_i / Σ b_i) over all words but w:

    KL(T ‖ S) = P_t log(P_t / P_s) + Σ_{v ≠ w} T(v) log(T(v) / S(v)) >= d(w)

Shapes: B sentences, T subwords, W words; padding has the number -1, EOS is one word.
"""

import math

import torch
from torch import Tensor


def word_log_probs(lprobs: Tensor, words: Tensor, count: int) -> Tensor:
    """log P (B, W) of words, in the type of ``lprobs``: the sum over the subwords of each, or 0.

    Args:
        lprobs: (B, T), log-probabilities of the reference, float32 or float64: in a half type 1 - P would be rounding
            errors. Padding may hold anything, NaN too.
        words: (B, T), int64, the number of the word of each subword, from 0; -1 at padding.
        count: W.
    """
    if lprobs.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"lprobs must be float32 or float64, got {lprobs.dtype}")
    if lprobs.dim() != 2 or words.shape != lprobs.shape or words.dtype != torch.int64:
        raise ValueError(
            f"words must be int64 (B, T) as lprobs {tuple(lprobs.shape)}, got {words.dtype} {tuple(words.shape)}"
        )
    if words.numel():
        low, high = (int(bound) for bound in torch.aminmax(words))
        if low < -1 or high >= count:
            raise ValueError(f"words must be from -1 to {count - 1}, got {low if low < -1 else high}")
    padding = words < 0
    sums = lprobs.new_zeros(lprobs.size(0), count)
    return sums.scatter_add(1, words.clamp_min(0), lprobs.masked_fill(padding, 0.0))


def word_kd_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Σ_w d(w), in nats, of log-probabilities of :func:`word_log_probs`; no gradient flows into the teacher.

        ∂d/∂log P_s = (P_s - P_t) / (1 - P_s)

    1 - P is clamped to half the machine epsilon, for value and gradient. With P_s = 0 and P_t > 0 the loss is infinite,
    with a finite gradient. ``student`` and ``teacher`` have any one shape, float32 or float64.
    """
    if student.shape != teacher.shape or student.dtype != teacher.dtype:
        raise ValueError(
            f"teacher must be {student.dtype} {tuple(student.shape)} as the student, "
            f"got {teacher.dtype} {tuple(teacher.shape)}"
        )
    if student.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"student must be float32 or float64, got {student.dtype}")
    highest = -torch.finfo(student.dtype).eps / 2
    teacher = teacher.detach().clamp_max(highest)
    # The value is clamped, the gradient goes through: a student that is too sure must learn that it is.
    student = torch.where(student > highest, student + (highest - student).detach(), student)
    probability, rest = teacher.exp(), -torch.expm1(teacher)
    # A teacher that is sure of another word, with a log-probability of -inf, adds 0 · log 0 = 0.
    this = torch.where(probability > 0, probability * (teacher - student), 0.0)
    others = rest * (log1mexp(teacher) - log1mexp(student))
    return (this + others).sum()


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, without cancellation at either end; the gradient is finite for all x < 0.

    log(-expm1(x)) above -log 2, log1p(-exp(x)) below (M. Mächler, Accurately computing log(1 - exp(-|a|)), 2012).
    """
    near = x > -math.log(2)
    # Each branch gets arguments in its own range: a NaN in the one not taken would enter the gradient.
    above = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    below = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, above, below)
