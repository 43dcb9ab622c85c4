"""Criterion ``sequence_level_kd``: learn the K best translations of a teacher, each with its weight."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.hypotheses import Hypotheses

SequenceLevelKDConfig = config_of([Hypotheses], "SequenceLevelKDConfig", __name__)


@register_criterion("sequence_level_kd", dataclass=SequenceLevelKDConfig)
class SequenceLevelKDCriterion(TermCriterion):
    r"""L = -Σ_k q_k log p(y_k | x), q_k ∝ exp(score_k / T), over the K best hypotheses y_k of a teacher for x.

    The scores are length-normalized log-probabilities in nats. The loss of each hypothesis is label-smoothed
    cross-entropy, ``sample_size`` is Σ_k q_k len_k (or sources, with ``--sentence-avg``). K = 1 is sequence-level
    distillation (Kim and Rush 2016, arXiv:1606.07947). The encoder runs once for each source.

    The hypotheses come from ``fairseq-compress kd-data binarize``; a validation split without them has the loss of the
    reference. Logged in bits: ``loss`` and ``nll_loss``, both weighted.
    """

    kinds = (Hypotheses,)
