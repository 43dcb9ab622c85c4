r"""Word-level knowledge distillation, fused with label-smoothed cross-entropy and computed chunk by chunk.

Over the target tokens n that are not padding, with student logits z, teachers m with logits z^m, V entries,
target y, temperature T and weight α (Hinton et al. 2015, arXiv:1503.02531; Kim and Rush 2016, arXiv:1606.07947):

    p = softmax(z),  p_T = softmax(z / T),  q_T = mean_m softmax(z^m / T)
    gold = Σ_n (1 - ε - ε_i) · (-log p_y) + ε_i · Σ_v (-log p_v),     ε_i = ε / (V - 1)   (fairseq's label smoothing)
    kd   = Σ_n KL(q_T ‖ p_T)
    loss = α · gold + (1 - α) · T² · kd

    ∂loss/∂z = α · (p - (1 - ε - ε_i) · onehot(y) - ε_i) + (1 - α) · T · (p_T - q_T)

The mean over teachers is a mean of probabilities (Freitag et al. 2017, arXiv:1702.01802).

A naive version holds seven or more matrices of (N, V). This one holds the gradient and a few chunks of rows: the
gradient is known in closed form, so it is made in the forward pass, one chunk of tokens after the other, and only
scaled in the backward pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class WordLevelKDLoss(NamedTuple):
    """Sums over the tokens that are not padding, in nats. Only ``loss`` carries a gradient."""

    loss: Tensor
    """α · gold + (1 - α) · T² · kd, a scalar."""
    gold: Tensor
    """Label-smoothed cross-entropy with the reference."""
    nll: Tensor
    """Plain cross-entropy with the reference; its mean gives the perplexity."""
    kd: Tensor
    """KL divergence from the teacher at temperature T, without the factor T²."""
    agreement: Tensor
    """Number of tokens where one entry is the most probable one of student and teacher alike."""


class _Terms(NamedTuple):
    """Everything about the objective that is not a tensor."""

    temperature: float
    alpha: float
    label_smoothing: float
    padding_idx: int
    chunk_rows: int


def word_level_kd_loss(
    student_logits: Tensor,
    teacher_logits: Sequence[Tensor],
    target: Tensor,
    *,
    temperature: float = 1.0,
    alpha: float = 0.5,
    label_smoothing: float = 0.0,
    padding_idx: int = 1,
    chunk_rows: int | None = None,
) -> WordLevelKDLoss:
    """The fused loss of this module's docstring.

    Args:
        student_logits: (N, V), any floating type; computed in float32 (float64 for float64).
        teacher_logits: one (N, V) tensor per teacher; no gradient flows into them.
        target: (N,), int64; rows whose target is ``padding_idx`` count for nothing and get a zero gradient.
        chunk_rows: tokens computed at a time; by default as many as fit the processor's cache.

    Raises:
        ValueError: shapes do not fit, there is no teacher, or a number is out of its range.
    """
    _check(student_logits, teacher_logits, target, temperature, alpha, label_smoothing)
    rows = chunk_rows or _default_chunk_rows(student_logits)
    terms = _Terms(temperature, alpha, label_smoothing, padding_idx, rows)
    return WordLevelKDLoss(*_WordLevelKD.apply(student_logits, target, terms, *teacher_logits))


def _check(
    student: Tensor, teachers: Sequence[Tensor], target: Tensor, temperature: float, alpha: float, smoothing: float
) -> None:
    if student.dim() != 2:
        raise ValueError(f"student_logits must be (N, V), got {tuple(student.shape)}")
    if not teachers:
        raise ValueError("teacher_logits must hold at least one tensor, got none")
    for teacher in teachers:
        if teacher.shape != student.shape:
            raise ValueError(
                f"teacher_logits must be {tuple(student.shape)} as the student's, got {tuple(teacher.shape)}"
            )
    if target.shape != student.shape[:1]:
        raise ValueError(f"target must be ({student.size(0)},), got {tuple(target.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, got {temperature}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {smoothing}")


def _default_chunk_rows(logits: Tensor) -> int:
    """Rows whose float32 copies stay in the cache (CPU), or keep a GPU busy per kernel launch."""
    elements = 2**19 if logits.device.type == "cpu" else 2**25
    return max(1, elements // max(1, logits.size(1)))


class _WordLevelKD(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, student: Tensor, target: Tensor, terms: _Terms, *teachers: Tensor) -> tuple[Tensor, ...]:
        compute = torch.float64 if student.dtype == torch.float64 else torch.float32
        # A float16 gradient could not hold the small probabilities before the loss is scaled.
        stored = torch.float32 if student.dtype == torch.float16 else student.dtype
        gradient = torch.empty_like(student, dtype=stored) if ctx.needs_input_grad[0] else None
        sums = torch.zeros(4, dtype=torch.float64, device=student.device)  # gold, nll, kd, agreement
        scratch = student.new_empty((4, terms.chunk_rows, student.size(1)), dtype=compute)
        for start in range(0, student.size(0), terms.chunk_rows):
            rows = slice(start, start + terms.chunk_rows)
            buffers = _Buffers(*scratch[:, : len(target[rows])])
            if gradient is not None and stored == compute:
                buffers = buffers._replace(probabilities=gradient[rows])  # made where it will stay
            logits = [teacher[rows].to(compute) for teacher in teachers]
            sums += _chunk_sums(student[rows].to(compute), logits, target[rows], terms, buffers)
            if gradient is not None:
                _to_gradient(buffers, target[rows], terms)
                if stored != compute:
                    gradient[rows] = buffers.probabilities
        ctx.gradient, ctx.dtype = gradient, student.dtype
        gold, nll, kd, agreement = sums.to(compute).unbind()
        loss = terms.alpha * gold + (1 - terms.alpha) * terms.temperature**2 * kd
        ctx.mark_non_differentiable(gold, nll, kd, agreement)
        return loss, gold, nll, kd, agreement

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None:
            raise RuntimeError("word_level_kd_loss: backward can run once only, its gradient is scaled in place")
        scaled = gradient.mul_(grad_outputs[0]).to(ctx.dtype)
        return scaled, *[None] * (len(ctx.needs_input_grad) - 1)


class _Buffers(NamedTuple):
    """Matrices of one chunk (R, V), used again for the next: fresh memory would cost more than the arithmetic."""

    probabilities: Tensor
    """softmax(z) of the student; turned into the gradient."""
    tempered: Tensor
    """softmax(z / T) of the student, where T is not 1."""
    teacher: Tensor
    """q, the teachers' mean probabilities at temperature T."""
    work: Tensor


def _chunk_sums(student: Tensor, teachers: list[Tensor], target: Tensor, terms: _Terms, buffers: _Buffers) -> Tensor:
    """The four sums of some rows (R, V); fills the probabilities in ``buffers``.

    Written for vectorized passes over rows in the cache: on a CPU ``argmax`` costs ten times what ``amax`` does, and
    a batched matrix product five times what multiply and sum do.
    """
    on_target, smoothed = _smoothing_weights(terms, student.size(1))
    best = student.amax(dim=-1)
    torch.softmax(student, dim=-1, out=buffers.probabilities)
    normalizer = best - buffers.probabilities.amax(dim=-1).log()  # log Σ exp z
    nll = normalizer - student.gather(1, target[:, None]).squeeze(1)
    gold = on_target * nll
    if terms.label_smoothing > 0:
        gold = gold + smoothed * (student.size(1) * normalizer - student.sum(dim=-1))
    if terms.temperature != 1:
        torch.div(student, terms.temperature, out=buffers.work)
        torch.softmax(buffers.work, dim=-1, out=buffers.tempered)
        normalizer = best / terms.temperature - buffers.tempered.amax(dim=-1).log()
    divergence = _divergence(teachers, student, normalizer, terms.temperature, buffers)
    teacher = buffers.teacher
    agreement = ((student == best[:, None]) & (teacher == teacher.amax(dim=-1, keepdim=True))).any(dim=-1)
    padded = target.eq(terms.padding_idx)
    parts = (gold, nll, divergence, agreement)
    return torch.stack([part.masked_fill(padded, 0).sum(dtype=torch.float64) for part in parts])


def _smoothing_weights(terms: _Terms, vocabulary: int) -> tuple[float, float]:
    """Weights of -log p_y and of -Σ_v log p_v in the gold term."""
    smoothed = terms.label_smoothing / (vocabulary - 1)
    return 1 - terms.label_smoothing - smoothed, smoothed


def _divergence(
    teachers: list[Tensor], student: Tensor, normalizer: Tensor, temperature: float, buffers: _Buffers
) -> Tensor:
    """KL(q ‖ p_T) of each row (R,); fills ``buffers.teacher`` with q. ``normalizer`` is log Σ exp(z / T)."""
    q, work = buffers.teacher, buffers.work
    if len(teachers) == 1:
        logits = teachers[0] if temperature == 1 else torch.div(teachers[0], temperature, out=work)
        torch.softmax(logits, dim=-1, out=q)
        teacher_normalizer = teachers[0].amax(dim=-1) / temperature - q.amax(dim=-1).log()
        # Σ q (log q - log p) with log q = z_t / T - c_t and log p = z_s / T - c_s; the difference first, for precision
        torch.sub(teachers[0], student, out=work)
        return work.mul_(q).sum(dim=-1) / temperature - teacher_normalizer + normalizer
    q.zero_()
    for teacher in teachers:
        q += torch.softmax(teacher / temperature, dim=-1)
    q /= len(teachers)
    entropy = torch.special.entr(q).sum(dim=-1)
    return normalizer - torch.mul(q, student, out=work).sum(dim=-1) / temperature - entropy


def _to_gradient(buffers: _Buffers, target: Tensor, terms: _Terms) -> None:
    """Turn ``buffers.probabilities`` into ∂loss/∂z of the rows."""
    gradient = buffers.probabilities
    on_target, smoothed = _smoothing_weights(terms, gradient.size(1))
    kd_weight = (1 - terms.alpha) * terms.temperature
    if terms.temperature == 1:  # α p + (1 - α) p = p
        gradient.sub_(buffers.teacher, alpha=kd_weight)
    else:
        gradient.mul_(terms.alpha).add_(buffers.tempered.sub_(buffers.teacher), alpha=kd_weight)
    if terms.label_smoothing > 0:
        gradient.sub_(terms.alpha * smoothed)
    gradient.scatter_add_(1, target[:, None], gradient.new_full((len(target), 1), -terms.alpha * on_target))
    gradient[target.eq(terms.padding_idx)] = 0.0
