"""Criterion ``word_level_kd``: learn the references and the teacher's word distributions at once."""

import math
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.word_level_kd import word_level_kd_loss
from fairseq_compress.teachers.frozen import FrozenTeachers


@dataclass
class WordLevelKDConfig(FairseqDataclass):
    """Options of :class:`WordLevelKDCriterion`."""

    teacher_path: Optional[str] = field(  # noqa: UP045 - fairseq's parser knows Optional only
        default=None, metadata={"help": "checkpoint of the teacher; several, separated by ':', are an ensemble"}
    )
    teacher_data: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "folder with the teacher's dict.LANG.txt (default: beside the checkpoint, "
            "then the data folder that it was trained on)"
        },
    )
    kd_temperature: float = field(
        default=1.0, metadata={"help": "temperature T > 0 of both distributions in the distillation term"}
    )
    kd_alpha: float = field(
        default=0.5, metadata={"help": "weight in [0, 1] of the references; the teacher's weight is 1 - alpha"}
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "epsilon in [0, 1) for label smoothing of the references"}
    )
    sentence_avg: bool = II("optimization.sentence_avg")


def check_options(cfg: WordLevelKDConfig) -> None:
    """Raise one :class:`ConfigError` that lists every option out of its rule."""
    rules = (
        (not cfg.teacher_path, "--teacher-path: must name the teacher's checkpoint, got none"),
        (not 0 < cfg.kd_temperature < math.inf, f"--kd-temperature: must be greater than 0, got {cfg.kd_temperature}"),
        (not 0 <= cfg.kd_alpha <= 1, f"--kd-alpha: must be in [0, 1], got {cfg.kd_alpha}"),
        (not 0 <= cfg.label_smoothing < 1, f"--label-smoothing: must be in [0, 1), got {cfg.label_smoothing}"),
    )
    problems = [message for broken, message in rules if broken]
    if problems:
        raise ConfigError("; ".join(problems))


@register_criterion("word_level_kd", dataclass=WordLevelKDConfig)
class WordLevelKDCriterion(FairseqCriterion):
    """L = α · CE_ls(y, z_s) + (1 - α) · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)), summed over target tokens.

    The definition and the gradient are in :mod:`fairseq_compress.functional.word_level_kd` (arXiv:1503.02531,
    arXiv:1606.07947). Logged in bits: ``loss``, ``gold_loss`` (label-smoothed), ``nll_loss``, ``kd_loss`` (the
    divergence without T²), and ``teacher_agreement``, the percentage of tokens with the same most probable entry.

    Raises:
        ConfigError: an option is out of its rule, or the teacher does not fit the task.
        CheckpointError: the teacher cannot be loaded.
    """

    def __init__(self, cfg: WordLevelKDConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check_options(cfg)
        self.cfg = cfg
        self.teachers = FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        logits = model(**sample["net_input"])[0]
        vocabulary = logits.size(-1)
        teacher_logits = self.teachers.logits(sample, next(model.parameters()).dtype)
        losses = word_level_kd_loss(
            logits.reshape(-1, vocabulary),
            [teacher.reshape(-1, vocabulary) for teacher in teacher_logits],
            sample["target"].reshape(-1),
            temperature=self.cfg.kd_temperature,
            alpha=self.cfg.kd_alpha,
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
        )
        sentences = sample["target"].size(0)
        sample_size = sentences if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.loss.detach(),
            "gold_loss": losses.gold,
            "nll_loss": losses.nll,
            "kd_loss": losses.kd,
            "teacher_agreement": losses.agreement,
            "ntokens": sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return losses.loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""

        def total(key: str) -> float:
            return utils.item(sum(log.get(key, 0) for log in logging_outputs))

        tokens, sample_size = total("ntokens"), total("sample_size")
        metrics.log_scalar("loss", total("loss") / sample_size / math.log(2), sample_size, round=3)
        for key in ("gold_loss", "nll_loss", "kd_loss"):
            metrics.log_scalar(key, total(key) / tokens / math.log(2), tokens, round=3)
        metrics.log_scalar("teacher_agreement", 100 * total("teacher_agreement") / tokens, tokens, round=2)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
