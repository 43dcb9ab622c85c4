"""Criterion ``hidden_state_kd``: learn from the teacher's words, hidden states and attention maps."""

from fairseq.criterions import register_criterion

from fairseq_compress.criterions.criterion import TermCriterion, config_of
from fairseq_compress.criterions.terms.attention import Attention
from fairseq_compress.criterions.terms.cosine import Cosine
from fairseq_compress.criterions.terms.features import Feature, FeatureMean, FeatureVariance
from fairseq_compress.criterions.terms.guided_alignment import GuidedAlignment
from fairseq_compress.criterions.terms.weighted_word_level import WeightedWordLevel

TERMS = (WeightedWordLevel, Cosine, Feature, FeatureMean, FeatureVariance, Attention, GuidedAlignment)
HiddenStateKDConfig = config_of(TERMS, "HiddenStateKDConfig", __name__)


@register_criterion("hidden_state_kd", dataclass=HiddenStateKDConfig)
class HiddenStateKDCriterion(TermCriterion):
    r"""A weighted sum of the losses of ``word_level_kd``, of hidden states and of attention maps:

        L = a · gold + b · T² · kd + c · cosine + d · feature + e · mean + f · variance + g · r^(epoch - 1) · attention

    Each is a sum over positions that are not padding, of the source in the encoder and of the target in the decoder.

    - ``cosine``: 1 - cos of the last hidden states, the mean of encoder and decoder (arXiv:1910.01108);
    - ``feature``, ``mean``, ``variance``: MobileBERT's losses (arXiv:2004.02984), the mean over mapped pairs of layers;
    - ``attention``, ``group``: KL of the teacher's maps to the student's, mean over heads (arXiv:2004.02984) and over
      all kinds of attention in all mapped pairs;
    - ``attention``, ``convolution``: align-to-distill (arXiv:2403.01479), all the teacher's maps of one kind against a
      learned pointwise convolution of the student's: the encoder's sum over sentences and heads plus the mean of the
      decoder's. The official code adds it to means over the N target positions of a batch: its weight of 1 is N here.

    See :mod:`fairseq_compress.functional.losses.layer_losses` and
    :mod:`fairseq_compress.functional.losses.attention_maps`. Where widths differ, learned linear maps of the student's
    states are parameters of this criterion.

    ``--transfer`` schedules the losses, see :class:`fairseq_compress.functional.layer_map.Transfer`. A layer phase has
    no dropout and frozen embeddings, those of the teacher; in a stage of progressive transfer the loss of its pair
    counts 1 / number of pairs. A validation logs all terms; its ``loss`` is that of the output phase, with r = 1.

    Logged besides the metrics of ``word_level_kd``, per target token, unweighted and not in bits: ``cosine_loss``,
    ``feature_loss``, ``feature_mean_loss``, ``feature_variance_loss``, ``attention_loss``.
    """

    kinds = TERMS
