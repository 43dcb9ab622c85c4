"""Criterion ``fused_label_smoothed_cross_entropy``: fairseq's, with the logits one block of tokens at a time."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.gold import Gold

FusedLabelSmoothedConfig = config_of([Gold], "FusedLabelSmoothedConfig", __name__)


@register_criterion("fused_label_smoothed_cross_entropy", dataclass=FusedLabelSmoothedConfig)
class FusedLabelSmoothedCriterion(TermCriterion):
    """The loss of fairseq's ``label_smoothed_cross_entropy``, summed over target tokens.

    Logged in bits, as fairseq does: ``loss`` and ``nll_loss``.
    """

    kinds = (Gold,)
