"""Criterion ``fused_label_smoothed_cross_entropy``: fairseq's, with the logits one block of tokens at a time."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.gold import Gold
from fairseq_compress.criterions.terms.guided_alignment import GuidedAlignment

KINDS = (Gold, GuidedAlignment)
FusedLabelSmoothedConfig = config_of(KINDS, "FusedLabelSmoothedConfig", __name__)


@register_criterion("fused_label_smoothed_cross_entropy", dataclass=FusedLabelSmoothedConfig)
class FusedLabelSmoothedCriterion(TermCriterion):
    """The loss of fairseq's ``label_smoothed_cross_entropy``, summed over target tokens.

    With ``--guided-alignment-weight`` that of ``label_smoothed_cross_entropy_with_alignment``, for any of our models.
    Logged in bits, as fairseq does: ``loss``, ``nll_loss``, ``guided_alignment_loss``.
    """

    kinds = KINDS
