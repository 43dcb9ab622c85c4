"""Criterion ``dual_vocab_kd``: a student and a teacher of several vocabularies learn together."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.both_vocabularies import BothVocabularies
from fairseq_compress.criterions.terms.projections import Projections
from fairseq_compress.criterions.terms.whole_words import WholeWords

TERMS = (BothVocabularies, WholeWords, Projections)
DualVocabKDConfig = config_of(TERMS, "DualVocabKDConfig", __name__)


@register_criterion("dual_vocab_kd", dataclass=DualVocabKDConfig)
class DualVocabKDCriterion(TermCriterion):
    r"""The objective of training a student and a teacher of other vocabularies together (arXiv:1909.11687):

        L = p · (down + up) + ε · (CE_student + CE_teacher) + w · word

    ``sample_size`` is the number of the student's target tokens (of sentences with ``--sentence-avg``). Without
    ``down``, ``up``, ``word`` and projected embeddings the student learns nothing from the teacher: a warning.

    Logged: ``loss``, ``nll_loss`` (of the student) and ``teacher_nll_loss`` in bits a token of each, ``word_kd_loss``
    in nats a token of the student, ``down_loss``, ``up_loss`` as they are.
    """

    kinds = TERMS
