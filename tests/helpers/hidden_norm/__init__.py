"""A plugin of its own, as ``--user-dir``: one more term of hidden states, and a criterion that lists it."""

from fairseq.criterions import register_criterion
from torch import Tensor

import fairseq_compress

fairseq_compress.register()

from fairseq_compress.compat import fairseq_options  # noqa: E402
from fairseq_compress.criterions.criterion import TermCriterion, config_of  # noqa: E402
from fairseq_compress.criterions.terms.cosine import Cosine  # noqa: E402
from fairseq_compress.criterions.terms.layers import PairTerm, TransferOptions  # noqa: E402
from fairseq_compress.criterions.terms.weighted_word_level import WeightedWordLevel  # noqa: E402
from fairseq_compress.options import option  # noqa: E402


@fairseq_options
class HiddenNormOptions(TransferOptions):
    """Options of :class:`HiddenNorm`."""

    hidden_norm_weight: float = option(0.0, "weight of the squared difference of the norms", range="[0, 10]")


class HiddenNorm(PairTerm):
    """(‖h_s‖ - ‖h_t‖)², summed over positions."""

    name = "hidden_norm"
    options = HiddenNormOptions

    @staticmethod
    def pair_loss(student: Tensor, teacher: Tensor) -> Tensor:
        return (student.norm(dim=1) - teacher.norm(dim=1)).square().sum()


KINDS = (WeightedWordLevel, Cosine, HiddenNorm)
HiddenNormConfig = config_of(KINDS, "HiddenNormConfig", __name__)


@register_criterion("hidden_norm_kd", dataclass=HiddenNormConfig)
class HiddenNormCriterion(TermCriterion):
    kinds = KINDS
