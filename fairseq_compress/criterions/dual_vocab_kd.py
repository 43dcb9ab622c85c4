"""Criterion ``dual_vocab_kd``: a student and a teacher of several vocabularies learn together."""

import logging
import math
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.shared import SharedConfig, check_rules, label_smoothing_rule, log_in_bits, total
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.layer_map import read_layer_map
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.word_kd import word_kd_loss, word_log_probs
from fairseq_compress.models.dual_vocabulary import DualVocabularyModel, dual_outputs
from fairseq_compress.modules.projections import DIRECTIONS, SharedProjections
from fairseq_compress.teachers.matched_weights import matched_weights, projection_sizes

logger = logging.getLogger(__name__)


@dataclass
class DualVocabKDConfig(SharedConfig):
    """Options of :class:`DualVocabKDCriterion`."""

    cross_entropy_weight: float = field(default=1.0, metadata={"help": "epsilon, of both cross-entropies"})
    projection_loss: ChoiceEnum(["none", *DIRECTIONS]) = field(  # type: ignore[valid-type]
        default="none",
        metadata={"help": "distances between the weights of student and teacher through shared projections"},
    )
    projection_weight: float = field(default=1.0, metadata={"help": "of the projection losses"})
    layer_map: Optional[str] = field(  # noqa: UP045 - fairseq makes its option of this form only
        default=None,
        metadata={"help": "the teacher's layer for each of the student's, as in 'encoder:1,3,5 decoder:2,-'"},
    )
    word_kd_weight: float = field(
        default=0.0,
        metadata={"help": "of the distillation of whole words, whose probabilities are products over their pieces"},
    )


@register_criterion("dual_vocab_kd", dataclass=DualVocabKDConfig)
class DualVocabKDCriterion(FairseqCriterion):
    r"""The objective of training a student and a teacher of other vocabularies together (arXiv:1909.11687):

        L = p · (down + up) + ε · (CE_student + CE_teacher) + w · word

    - ``CE``: label-smoothed cross-entropies, sums over the target tokens of each model in its own segmentation;
    - ``down``, ``up``: :mod:`fairseq_compress.functional.losses.projection_losses`, once an update;
    - ``word``: :mod:`fairseq_compress.functional.losses.word_kd`, a sum over the words of the target.

    ``sample_size`` is the number of the student's target tokens (of sentences with ``--sentence-avg``). The projection
    losses are no sum over tokens: they are multiplied by it, so that its division leaves them as they are, however the
    batch was cut. The projections are parameters of this criterion: trained, saved and resumed with the model, and no
    part of it. fairseq-validate does not load them, so validation is without these losses: of the weights alone they
    tell nothing of a text. Where neither ``down``, ``up`` nor ``word`` nor projected embeddings link the two models,
    the student learns exactly as it does alone, and a warning says so.

    Logged: ``loss``, ``nll_loss`` (of the student) and ``teacher_nll_loss`` in bits a token of each, ``word_kd_loss``
    in nats a token of the student, ``down_loss``, ``up_loss`` as they are.

    Raises:
        ConfigError: an option is out of its rule, or the models do not fit the options.
    """

    def __init__(self, cfg: DualVocabKDConfig, task: FairseqTask) -> None:
        super().__init__(task)
        weights = ("cross_entropy_weight", "projection_weight", "word_kd_weight")
        check_rules([
            label_smoothing_rule(cfg.label_smoothing),
            *(
                (getattr(cfg, name) < 0, f"--{name.replace('_', '-')}: must be at least 0, got {getattr(cfg, name)}")
                for name in weights
            ),
            (
                cfg.word_kd_weight > 0 and str(cfg.loss_from) == "hidden",
                "--loss-from hidden: must be auto or logits with --word-kd-weight, which looks at logits",
            ),
            (
                cfg.layer_map is not None and str(cfg.projection_loss) == "none",
                f"--layer-map: must be given with --projection-loss, got {cfg.layer_map} alone",
            ),
        ])  # fmt: skip
        model = getattr(task, "student", None)
        if not isinstance(model, DualVocabularyModel):
            raise ConfigError("--criterion dual_vocab_kd: needs --task dual_vocab_translation")
        self.cfg = cfg
        self.projections: SharedProjections | None = None
        if str(cfg.projection_loss) != "none":
            given = None if cfg.layer_map is None else read_layer_map(cfg.layer_map)
            matched = matched_weights(model.student, model.teacher, given)
            axes = {weight.axes for weight in matched}
            self.projections = SharedProjections(projection_sizes(matched), str(cfg.projection_loss), axes)
            self._matched = matched
        elif cfg.word_kd_weight == 0 and model.student_projection is None:
            logger.warning(
                "the student learns nothing from the teacher, as if it was alone: that takes "
                "--student-embeddings projected, --projection-loss or --word-kd-weight"
            )

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        words = self.cfg.word_kd_weight > 0
        outputs = dual_outputs(model, sample, "logits" if words else str(self.cfg.loss_from))
        targets = sample["target"], sample["teacher"]["target"]
        student, teacher = (
            label_smoothed_loss(
                output, target.reshape(-1), label_smoothing=self.cfg.label_smoothing, padding_idx=self.padding_idx
            )
            for output, target in zip(outputs, targets, strict=True)
        )
        sample_size = sample["target"].size(0) if self.cfg.sentence_avg else sample["ntokens"]
        loss = self.cfg.cross_entropy_weight * (student.loss + teacher.loss)
        logged: dict[str, Any] = {"nll_loss": student.nll, "teacher_nll_loss": teacher.nll}
        if words:
            word = self._word_loss(outputs, targets, sample["words"])
            loss = loss + self.cfg.word_kd_weight * word
            logged["word_kd_loss"] = word.detach()
        if self.projections is not None and self.training:
            distances = self.projections.loss(weight.pair() for weight in self._matched)
            loss = loss + sample_size * self.cfg.projection_weight * distances.total
            logged |= {
                "down_loss": sample_size * distances.down.detach(),
                "up_loss": sample_size * distances.up.detach(),
            }
        logged |= {
            "loss": loss.detach(), "ntokens": sample["ntokens"], "teacher_ntokens": sample["teacher"]["ntokens"],
            "nsentences": sample["target"].size(0), "sample_size": sample_size,
        }  # fmt: skip
        return loss, sample_size, logged

    def _word_loss(self, outputs: Any, targets: tuple[Tensor, Tensor], words: dict[str, Tensor]) -> Tensor:
        numbers = words["student"], words["teacher"]
        count = int(numbers[0].max()) + 1
        with torch.autocast(targets[0].device.type, enabled=False):
            student, teacher = (
                word_log_probs(reference_lprobs(output, target), number, count)
                for output, target, number in zip(outputs, targets, numbers, strict=True)
            )
            return word_kd_loss(student, teacher)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""
        log_in_bits(logging_outputs)
        tokens, theirs, size = (total(logging_outputs, key) for key in ("ntokens", "teacher_ntokens", "sample_size"))
        bits = total(logging_outputs, "teacher_nll_loss") / theirs / math.log(2)
        metrics.log_scalar("teacher_nll_loss", bits, theirs, round=3)
        for key, count in (("word_kd_loss", tokens), ("down_loss", size), ("up_loss", size)):
            if any(key in log for log in logging_outputs):
                metrics.log_scalar(key, total(logging_outputs, key) / count, count, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def reference_lprobs(logits: Tensor, target: Tensor) -> Tensor:
    """log p (B, T) of the reference tokens, in float32, from logits (B · T, V)."""
    return -F.cross_entropy(logits.float(), target.reshape(-1), reduction="none").view_as(target)
