"""Criterion ``word_level_kd``: learn the references and the teacher's word distributions at once."""

from contextlib import ExitStack
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.on_policy import coin, student_samples
from fairseq_compress.criterions.selective_kd import TokenSelection
from fairseq_compress.criterions.shared import Rule, check_rules, log_in_bits, logits_rule, total
from fairseq_compress.criterions.word_level_kd_options import WordLevelKDConfig, word_level_rules
from fairseq_compress.datasets.teacher_cache import SAMPLE_KEY, attach_teacher_cache
from fairseq_compress.functional.losses.divergences import Divergence
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import Output, Teachers, TopK
from fairseq_compress.functional.losses.predictions import best_entries
from fairseq_compress.functional.losses.word_level_kd import WordLevelKDLoss, word_level_kd_loss
from fairseq_compress.functional.seeds import seed_of
from fairseq_compress.models.encoder_reuse import encoding_once
from fairseq_compress.models.student_output import student_output
from fairseq_compress.teachers.frozen import FrozenTeachers


@register_criterion("word_level_kd", dataclass=WordLevelKDConfig)
class WordLevelKDCriterion(FairseqCriterion):
    """L = α · CE_ls(y, z_s) + (1 - α) · T² · D(softmax(z_t / T), softmax(z_s / T)), summed over target tokens.

    The definition and the gradient are in :mod:`fairseq_compress.functional.losses.word_level_kd` (arXiv:1503.02531,
    arXiv:1606.07947), D is KL(q ‖ p) or ``--kd-divergence``. The teachers are in memory, or their top k probabilities
    come with each batch from a cache. A validation split without a cache has the gold term alone, the loss is CE_ls.

    Which tokens, prefixes and teachers: ``--selective-kd`` (arXiv:2105.12967); ``--kd-iterations`` and
    ``--kd-ranking`` (TIE-KD, arXiv:2305.08096): D is the mean over N passes, the first on the reference, each other
    on the student's best words of the pass before; ``--on-policy-fraction`` λ (arXiv:2306.13649): in that share of the
    batches D is taken on samples of the student, and scaled from their number of tokens to that of the references;
    ``--teacher-dropout-passes`` (Bulò et al. 2016).

    Logged in bits: ``loss``, ``gold_loss`` (label-smoothed), ``nll_loss``, ``kd_loss`` (the divergence without T²),
    and ``teacher_agreement``, the percentage of tokens with the same most probable entry.

    Raises:
        ConfigError: options are out of their rules, or the teacher does not fit the task.
        CheckpointError: the teacher cannot be loaded.
        DataError: the cache is missing, damaged, or made from something else.
    """

    def __init__(self, cfg: WordLevelKDConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check_rules(self.rules(cfg))
        self.cfg = cfg
        self.divergence = Divergence(str(cfg.kd_divergence), cfg.jsd_beta, cfg.kd_ranking)
        self.select = TokenSelection(str(cfg.selective_kd), cfg.selective_kd_rate, cfg.selective_kd_queue, task)
        self.teachers: FrozenTeachers | None = None
        if cfg.teacher_cache:
            attach_teacher_cache(task, cfg.teacher_cache, cfg.teacher_path, cfg.kd_temperature)
        else:
            self.teachers = FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)
            passes = cfg.teacher_dropout_passes
            no_dropout = f"--teacher-dropout-passes: must be 0 for a teacher without dropout, got {passes}"
            check_rules([(passes > 0 and self.teachers.dropout == 0, no_dropout)])
        self._draws = (0, 0)  # of a seed, so far

    def rules(self, cfg: Any) -> list[Rule]:
        """What is checked of the options, and of the task."""
        return [
            *word_level_rules(cfg, self.sees_inside(cfg)),
            logits_rule(self.task),
            (
                str(cfg.selective_kd) == "queue" and not hasattr(self.task, "training"),
                "--selective-kd queue: needs --task compressed_translation, which keeps the queue, got another one",
            ),
        ]

    def sees_inside(self, cfg: Any) -> bool:
        """Whether the teacher itself is needed beside a cache of its words."""
        return False

    def loss_weights(self) -> tuple[float, float]:
        """Weights of the gold term and of the distillation term at this moment of the training."""
        return self.cfg.kd_alpha, 1 - self.cfg.kd_alpha

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        if self.training and self.cfg.on_policy_fraction > 0 and coin(self._seed()) < self.cfg.on_policy_fraction:
            losses, taught = self._on_policy(model, sample), sample["ntokens"]
        else:
            losses, taught = self._teacher_forced(model, sample)
        sentences = sample["target"].size(0)
        sample_size = sentences if self.cfg.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": losses.loss.detach(),
            "gold_loss": losses.gold,
            "nll_loss": losses.nll,
            "kd_loss": losses.kd,
            "teacher_agreement": losses.agreement,
            "ntokens": sample["ntokens"],
            "taught_tokens": taught,
            "nsentences": sentences,
            "sample_size": sample_size,
        }
        return losses.loss, sample_size, logging_output

    def _teacher_forced(self, model: nn.Module, sample: dict[str, Any]) -> tuple[WordLevelKDLoss, int]:
        """On the references and, with iterations, on what the student makes of them; the tokens that were taught."""
        passes = self.cfg.kd_iterations if self.training else 1
        gold_weight, kd_weight = self.loss_weights()
        target, found = sample["target"].reshape(-1), []
        weights: Tensor | None = None
        with ExitStack() as stack:
            if passes > 1:
                alike = [] if self.teachers is None or self.cfg.teacher_dropout_passes else self.teachers.models
                stack.enter_context(encoding_once([model, *alike]))
            for number in range(passes):
                student = student_output(model, sample["net_input"], str(self.cfg.loss_from))
                teachers = self._teachers(sample, next(model.parameters()).dtype)
                if teachers is None:
                    return self._gold(student, target), 0
                if number == 0:
                    weights = self.select(student, target, self.padding_idx, self.training)
                found.append(self._loss(student, teachers, target, gold_weight, kd_weight / passes, weights))
                gold_weight = 0.0
                if number + 1 < passes:
                    sample = _continued(sample, best_entries(student))
        first = found[0]
        kd = torch.stack([one.kd for one in found]).mean()
        loss = first.loss if passes == 1 else torch.stack([one.loss for one in found]).sum()
        return first._replace(loss=loss, kd=kd), sample["ntokens"]

    def _on_policy(self, model: nn.Module, sample: dict[str, Any]) -> WordLevelKDLoss:
        """The gold term on the references, the teacher's on samples of the student."""
        gold_weight, kd_weight = self.loss_weights()
        sampled = student_samples(model, self.task, sample, self._seed())
        target, scale = sampled["target"].reshape(-1), sample["ntokens"] / sampled["ntokens"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and gold_weight > 0):
            gold = self._gold(
                student_output(model, sample["net_input"], str(self.cfg.loss_from)), sample["target"].reshape(-1)
            )
        student = student_output(model, sampled["net_input"], str(self.cfg.loss_from))
        teachers = self._teachers(sampled, next(model.parameters()).dtype)
        assert teachers is not None, "the rules ask for a live teacher"
        kd = self._loss(student, teachers, target, 0.0, kd_weight * scale, None)
        return gold._replace(loss=gold_weight * gold.loss + kd.loss, kd=kd.kd * scale, agreement=kd.agreement * scale)

    def _seed(self) -> int:
        """A seed of its own for each draw: fairseq seeds torch anew for each update, the same after a resumption."""
        seed = torch.initial_seed()
        self._draws = (seed, self._draws[1] + 1 if self._draws[0] == seed else 0)
        return seed_of("word_level_kd", *self._draws)

    def _teachers(self, sample: dict[str, Any], dtype: torch.dtype) -> Teachers | None:
        """What the teachers say of the batch; None where it comes from a split without a cache."""
        if self.teachers is not None:
            passes = self.cfg.teacher_dropout_passes if self.training else 0
            seed = self._seed() if passes else 0
            return self.teachers.outputs(sample, dtype, str(self.cfg.loss_from), passes, seed)
        if SAMPLE_KEY not in sample:
            return None
        cached = sample[SAMPLE_KEY]
        return TopK(cached["ids"].flatten(0, 1), cached["probabilities"].flatten(0, 1), cached["rest"].flatten(0, 1))

    def _gold(self, student: Output, target: Tensor) -> WordLevelKDLoss:
        loss, nll = label_smoothed_loss(
            student, target, label_smoothing=self.cfg.label_smoothing, padding_idx=self.padding_idx
        )
        zero = torch.zeros_like(nll)
        return WordLevelKDLoss(loss, loss.detach(), nll, zero, zero)

    def _loss(
        self,
        student: Output,
        teachers: Teachers,
        target: Tensor,
        gold_weight: float,
        kd_weight: float,
        weights: Tensor | None,
    ) -> WordLevelKDLoss:
        return word_level_kd_loss(
            student,
            teachers,
            target,
            temperature=self.cfg.kd_temperature,
            gold_weight=gold_weight,
            kd_weight=kd_weight,
            divergence=self.divergence,
            weights=weights,
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


def _continued(sample: dict[str, Any], best: Tensor) -> dict[str, Any]:
    """The batch with the best words (B · T,) as the prefix: what stood before the first target stays."""
    net_input = sample["net_input"]
    previous = net_input["prev_output_tokens"]
    shifted = torch.cat([previous[:, :1], best.view_as(previous)[:, :-1].to(previous)], dim=1)
    return {**sample, "net_input": {**net_input, "prev_output_tokens": shifted}}
