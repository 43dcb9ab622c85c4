"""Criterion ``fused_label_smoothed_cross_entropy``: fairseq's, with the logits one block of tokens at a time."""

from dataclasses import dataclass
from typing import Any

from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.shared import SharedConfig, check_rules, label_smoothing_rule, log_in_bits, logits_rule
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.models.student_output import student_output


@dataclass
class FusedLabelSmoothedConfig(SharedConfig):
    """Options of :class:`FusedLabelSmoothedCriterion`."""


@register_criterion("fused_label_smoothed_cross_entropy", dataclass=FusedLabelSmoothedConfig)
class FusedLabelSmoothedCriterion(FairseqCriterion):
    """The loss of fairseq's ``label_smoothed_cross_entropy`` (arXiv:1512.00567), summed over target tokens.

    The definition and the gradient are in :mod:`fairseq_compress.functional.losses.label_smoothed`. Logged in bits, as
    fairseq does: ``loss`` and ``nll_loss``.

    Raises:
        ConfigError: an option is out of its rule.
    """

    def __init__(self, cfg: FusedLabelSmoothedConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check_rules([label_smoothing_rule(cfg.label_smoothing), logits_rule(task)])
        self.cfg = cfg

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        losses = label_smoothed_loss(
            student_output(model, sample["net_input"], str(self.cfg.loss_from)),
            sample["target"].reshape(-1),
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
        )
        sentences = sample["target"].size(0)
        sample_size = sentences if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.loss.detach(),
            "nll_loss": losses.nll,
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return losses.loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""
        log_in_bits(logging_outputs)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
