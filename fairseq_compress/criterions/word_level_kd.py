"""Criterion ``word_level_kd``: learn the references and the teacher's word distributions at once."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.guided_alignment import GuidedAlignment
from fairseq_compress.criterions.terms.word_level import WordLevel

KINDS = (WordLevel, GuidedAlignment)
WordLevelKDConfig = config_of(KINDS, "WordLevelKDConfig", __name__)


@register_criterion("word_level_kd", dataclass=WordLevelKDConfig)
class WordLevelKDCriterion(TermCriterion):
    """L = α · CE_ls(y, z_s) + (1 - α) · T² · D(softmax(z_t / T), softmax(z_s / T)), summed over target tokens.

    See :mod:`fairseq_compress.functional.losses.word_level_kd` (arXiv:1503.02531, arXiv:1606.07947); D is KL(q ‖ p) or
    ``--kd-divergence``. A split without a teacher cache, when one is used, has the loss CE_ls.

    Variants: ``--selective-kd`` (arXiv:2105.12967); ``--kd-iterations`` and ``--kd-ranking`` (TIE-KD,
    arXiv:2305.08096): D is the mean over N passes, the first on the reference, each other on the student's best words
    of the pass before; ``--on-policy-fraction`` λ (arXiv:2306.13649): in that fraction of the batches D is taken on
    samples of the student, scaled to the number of reference tokens; ``--teacher-dropout-passes`` (Bulò et al. 2016).

    ``--guided-alignment-weight`` adds a loss of the attention to the source (arXiv:1607.01628).

    Logged in bits: ``loss``, ``gold_loss`` (label-smoothed), ``nll_loss``, ``kd_loss`` (the divergence without T²),
    ``guided_alignment_loss``, and ``teacher_agreement``, the percentage of tokens with the same most probable entry.
    """

    kinds = KINDS
