"""The distillation term of some rows (R, V): KL(q ‖ p) from live teachers' logits, or from a cached teacher's top k.

``p`` is the student's softmax(z / T), ``normalizer`` its log Σ exp(z / T). Written for vectorized passes over rows in
the cache: on a CPU a batched matrix product costs five times what multiply and sum do.
"""

import torch
from torch import Tensor

from fairseq_compress.functional.outputs import TopK


def live_divergence(
    teachers: list[Tensor], student: Tensor, normalizer: Tensor, temperature: float, q: Tensor, work: Tensor
) -> Tensor:
    """KL(q ‖ p) of each row; fills ``q`` with the teachers' mean probabilities."""
    if len(teachers) == 1:
        logits = teachers[0] if temperature == 1 else torch.div(teachers[0], temperature, out=work)
        torch.softmax(logits, dim=-1, out=q)
        teacher_normalizer = teachers[0].amax(dim=-1) / temperature - q.amax(dim=-1).log()
        # Σ q (log q - log p) with log q = z_t / T - c_t and log p = z_s / T - c_s; the difference first, for precision
        torch.sub(teachers[0], student, out=work)
        return work.mul_(q).sum(dim=-1) / temperature - teacher_normalizer + normalizer
    q.zero_()
    for teacher in teachers:
        torch.div(teacher, temperature, out=work)
        q += torch.softmax(work, dim=-1)
    q /= len(teachers)
    entropy = torch.special.entr(q).sum(dim=-1)
    return normalizer - torch.mul(q, student, out=work).sum(dim=-1) / temperature - entropy


class Truncated:
    r"""The cached teacher: K its k most probable entries, q_r and p_r the mass of teacher and student outside of K.

        KL over k + 1 entries = Σ_{i in K} q_i log(q_i / p_i) + q_r log(q_r / p_r)

        ∂KL/∂(z_j / T) = p_j - q_j in K,    p_j · (1 - q_r / p_r) outside

    With k = V this is the live teacher. p_r is summed outside of K: one minus the sum inside would cancel.
    """

    def __init__(self, teacher: TopK, student: Tensor, normalizer: Tensor, temperature: float, p: Tensor) -> None:
        """Clears the entries K of ``p``, whose values are kept in ``inside``."""
        ids, q, rest = teacher
        self.inside = p.gather(1, ids)
        p.scatter_(1, ids, 0.0)
        outside = p.sum(dim=-1).clamp_min_(torch.finfo(p.dtype).tiny)
        log_p = student.gather(1, ids).div_(temperature).sub_(normalizer[:, None])
        self.divergence = (torch.xlogy(q, q) - q * log_p).sum(dim=-1) + torch.xlogy(rest, rest) - rest * outside.log()
        self.outside_factor = 1 - rest / outside
