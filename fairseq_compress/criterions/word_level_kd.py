"""Criterion ``word_level_kd``: learn the references and the teacher's word distributions at once."""

import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.shared import SharedConfig, check_rules, label_smoothing_rule, log_in_bits, total
from fairseq_compress.datasets.teacher_cache import SAMPLE_KEY, attach_teacher_cache
from fairseq_compress.functional.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.outputs import Output, Teachers, TopK
from fairseq_compress.functional.word_level_kd import WordLevelKDLoss, word_level_kd_loss
from fairseq_compress.models.student_output import student_output
from fairseq_compress.teachers.frozen import FrozenTeachers


@dataclass
class WordLevelKDConfig(SharedConfig):
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
    teacher_cache: Optional[str] = field(  # noqa: UP045
        default=None,
        metadata={
            "help": "output folder of 'fairseq-compress cache-teacher': no teacher is loaded; with --teacher-path, the "
            "cache must be of that teacher, by checksum"
        },
    )
    kd_temperature: float = field(
        default=1.0, metadata={"help": "temperature T > 0 of both distributions in the distillation term"}
    )
    kd_alpha: float = field(
        default=0.5, metadata={"help": "weight in [0, 1] of the references; the teacher's weight is 1 - alpha"}
    )


def check_options(cfg: WordLevelKDConfig) -> None:
    """Raise one :class:`ConfigError` that lists every option out of its rule."""
    no_teacher = "--teacher-path: must name the teacher's checkpoint, or --teacher-cache its cache, got neither"
    check_rules(
        (
            (not (cfg.teacher_path or cfg.teacher_cache), no_teacher),
            (
                bool(cfg.teacher_cache and cfg.teacher_data),
                f"--teacher-data: must not be given with --teacher-cache, which has checksums of its dictionaries, "
                f"got {cfg.teacher_data}",
            ),
            (
                not 0 < cfg.kd_temperature < math.inf,
                f"--kd-temperature: must be greater than 0, got {cfg.kd_temperature}",
            ),
            (not 0 <= cfg.kd_alpha <= 1, f"--kd-alpha: must be in [0, 1], got {cfg.kd_alpha}"),
            label_smoothing_rule(cfg.label_smoothing),
        )
    )


@register_criterion("word_level_kd", dataclass=WordLevelKDConfig)
class WordLevelKDCriterion(FairseqCriterion):
    """L = α · CE_ls(y, z_s) + (1 - α) · T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)), summed over target tokens.

    The definition and the gradient are in :mod:`fairseq_compress.functional.word_level_kd` (arXiv:1503.02531,
    arXiv:1606.07947). The teachers are in memory, or their top k probabilities come with each batch from a cache. A
    validation split without a cache has the gold term only, there the loss is CE_ls.

    Logged in bits: ``loss``, ``gold_loss`` (label-smoothed), ``nll_loss``, ``kd_loss`` (the divergence without T²),
    and ``teacher_agreement``, the percentage of tokens with the same most probable entry.

    Raises:
        ConfigError: an option is out of its rule, or the teacher does not fit the task.
        CheckpointError: the teacher cannot be loaded.
        DataError: the cache is missing, damaged, or made from something else.
    """

    def __init__(self, cfg: WordLevelKDConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check_options(cfg)
        self.cfg = cfg
        self.teachers: FrozenTeachers | None = None
        if cfg.teacher_cache:
            attach_teacher_cache(task, cfg.teacher_cache, cfg.teacher_path, cfg.kd_temperature)
        else:
            self.teachers = FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        student = student_output(model, sample["net_input"], str(self.cfg.loss_from))
        teachers = self._teachers(sample, next(model.parameters()).dtype)
        losses = self._losses(student, teachers, sample["target"].reshape(-1))
        sentences = sample["target"].size(0)
        sample_size = sentences if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.loss.detach(),
            "gold_loss": losses.gold,
            "nll_loss": losses.nll,
            "kd_loss": losses.kd,
            "teacher_agreement": losses.agreement,
            "ntokens": sample["ntokens"],
            "taught_tokens": 0 if teachers is None else sample["ntokens"],
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return losses.loss, sample_size, logging_output

    def _teachers(self, sample: dict[str, Any], dtype: torch.dtype) -> Teachers | None:
        """What the teachers say of the batch; None where it comes from a split without a cache."""
        if self.teachers is not None:
            return self.teachers.outputs(sample, dtype, str(self.cfg.loss_from))
        if SAMPLE_KEY not in sample:
            return None
        cached = sample[SAMPLE_KEY]
        return TopK(cached["ids"].flatten(0, 1), cached["probabilities"].flatten(0, 1), cached["rest"].flatten(0, 1))

    def _losses(self, student: Output, teachers: Teachers | None, target: Tensor) -> WordLevelKDLoss:
        if teachers is None:
            loss, nll = label_smoothed_loss(
                student, target, label_smoothing=self.cfg.label_smoothing, padding_idx=self.padding_idx
            )
            zero = torch.zeros_like(nll)
            return WordLevelKDLoss(loss, loss.detach(), nll, zero, zero)
        return word_level_kd_loss(
            student,
            teachers,
            target,
            temperature=self.cfg.kd_temperature,
            alpha=self.cfg.kd_alpha,
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
        )

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""
        taught = total(logging_outputs, "taught_tokens")
        log_in_bits(logging_outputs, ("gold_loss", "nll_loss", "kd_loss") if taught else ("gold_loss", "nll_loss"))
        if taught:
            agreement = 100 * total(logging_outputs, "teacher_agreement") / taught
            metrics.log_scalar("teacher_agreement", agreement, taught, round=2)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True
