"""The references and the teacher's word distributions, in one pass over the student's logits."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.on_policy import coin, student_samples
from fairseq_compress.criterions.selective_kd import TokenSelection
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions, counts_of
from fairseq_compress.datasets.teacher_cache import SAMPLE_KEY, attach_teacher_cache
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.draws import seed_of
from fairseq_compress.functional.losses.divergences import KINDS, Divergence
from fairseq_compress.functional.losses.outputs import Output, Teachers, TopK
from fairseq_compress.functional.losses.predictions import best_entries
from fairseq_compress.functional.losses.word_level_kd import WordLevelKDLoss, word_level_kd_loss
from fairseq_compress.models.student_output import encoding_once
from fairseq_compress.options import flag, option, plain
from fairseq_compress.teachers.frozen import FrozenTeachers


@fairseq_options
class TeacherOptions(TermOptions):
    """Options of :class:`WordLevel` but for the weights of its two parts."""

    teacher_path: str | None = option(None, "checkpoint of the teacher; several, separated by ':', are an ensemble")
    teacher_data: str | None = option(
        None,
        "folder with the teacher's dict.LANG.txt (default: next to the checkpoint, then its training data folder)",
    )
    teacher_cache: str | None = option(
        None,
        "output folder of 'fairseq-compress cache-teacher', in place of the teacher; with --teacher-path, "
        "the checksums of the cache must match that teacher",
    )
    kd_temperature: float = option(1.0, "temperature of both distributions in the distillation loss", range="(0, inf)")
    kd_alpha: float = option(0.5, "weight of the references; the distillation loss has 1 - alpha", range="[0, 1]")
    kd_divergence: str = option(
        "forward_kl",
        "divergence between teacher q and student p: KL(q|p), KL(p|q), or Jensen-Shannon with --jsd-beta",
        choices=KINDS,
    )
    jsd_beta: float = option(
        0.5, "beta of b KL(q|m) + (1-b) KL(p|m), m = bq + (1-b)p", range="(0, 1)", needs="kd_divergence=jsd"
    )
    kd_ranking: int = option(
        0, "add a hinge loss on the order of the teacher's k best words (TIE-KD: 5; 0: off)", range="[0, inf)"
    )
    kd_iterations: int = option(
        1,
        "decoder passes; from the second on, the student's most probable words are the prefix (TIE-KD: 3)",
        range="[1, inf)",
    )
    selective_kd: str = option(
        "none",
        "distil only the tokens with the largest loss of the student: in the batch, or compared with a queue",
        choices=("none", "batch", "queue"),
    )
    selective_kd_rate: float = option(
        0.5, "fraction of the tokens to distil", range="(0, 1)", needs="selective_kd=batch|queue"
    )
    selective_kd_queue: int = option(
        30000, "tokens in the queue of --selective-kd queue", range="[1, inf)", needs="selective_kd=queue"
    )
    on_policy_fraction: float = option(
        0.0, "fraction of the batches in which the distillation loss uses samples of the student", range="[0, 1]"
    )
    teacher_dropout_passes: int = option(
        0, "average the teacher over N passes with dropout (0: one pass without dropout)", range="[0, inf)"
    )


class WordLevel(Term):
    """α · CE_ls + (1 - α) · T² · D: see the criterion ``word_level_kd``."""

    options: ClassVar[type[TermOptions]] = TeacherOptions
    metrics = (
        Metric("gold_loss"),
        Metric("nll_loss"),
        Metric("kd_loss", only_with="taught_tokens"),
        Metric("teacher_agreement", "taught_tokens", bits=False, digits=2, factor=100, only_with="taught_tokens"),
    )

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        yield from _teacher_problems(cfg)
        if cfg.kd_iterations > 1 and cfg.on_policy_fraction > 0:
            yield (
                "--kd-iterations: must be 1 with --on-policy-fraction, which chooses the prefix too, got "
                f"{cfg.kd_iterations}"
            )
        if str(cfg.selective_kd) != "none" and cfg.on_policy_fraction > 0:
            yield (
                "--selective-kd: must be none with --on-policy-fraction, whose samples have no reference, got "
                f"{cfg.selective_kd}"
            )
        if (
            cfg.teacher_cache
            and cfg.teacher_data
            and not any(kind.of_teacher and kind.counts(cfg) for kind in kinds[1:])
        ):
            yield (
                "--teacher-data: must not be given with --teacher-cache, which has checksums of its dictionaries, "
                f"got {cfg.teacher_data}"
            )
        yield from super().problems(cfg, task, kinds)
        if str(cfg.selective_kd) == "queue" and not hasattr(task, "clock"):
            yield "--selective-kd queue: needs --task compressed_translation, which keeps the queue, got another one"

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(cfg, task)
        divergence = Divergence(str(cfg.kd_divergence), cfg.jsd_beta, cfg.kd_ranking)
        self._loss = partial(
            word_level_kd_loss, temperature=cfg.kd_temperature, divergence=divergence,
            label_smoothing=cfg.label_smoothing, padding_idx=self.padding_idx,
        )  # fmt: skip
        self.select = TokenSelection(str(cfg.selective_kd), cfg.selective_kd_rate, cfg.selective_kd_queue, task)
        self.teachers: FrozenTeachers | None = None
        """None with a cache."""
        self._draws = (0, 0)  # of a seed, so far
        if cfg.teacher_cache:
            attach_teacher_cache(task, cfg.teacher_cache, cfg.teacher_path, cfg.kd_temperature)
            return
        self.teachers = FrozenTeachers(cfg.teacher_path or "", task, cfg.teacher_data)
        passes = cfg.teacher_dropout_passes
        if passes > 0 and self.teachers.dropout == 0:
            raise ConfigError(f"--teacher-dropout-passes: must be 0 for a teacher without dropout, got {passes}")

    def weights(self, batch: Batch) -> tuple[float, float]:
        """Of the gold part and of the distillation part."""
        return self.cfg.kd_alpha, 1 - self.cfg.kd_alpha

    def __call__(self, batch: Batch) -> Found:
        sample = batch.sample
        if batch.training and self.cfg.on_policy_fraction > 0 and coin(self._seed()) < self.cfg.on_policy_fraction:
            losses, taught = self._on_policy(batch), sample["ntokens"]
        else:
            losses, taught = self._teacher_forced(batch)
        logged = {
            "gold_loss": losses.gold,
            "nll_loss": losses.nll,
            "kd_loss": losses.kd,
            "teacher_agreement": losses.agreement,
            "taught_tokens": taught,
        }
        return Found(losses.loss, logged | counts_of(sample, self.cfg))

    def _teacher_forced(self, batch: Batch) -> tuple[WordLevelKDLoss, int]:
        """On the references and, with iterations, on the student's best words; the tokens that were taught."""
        model, sample = batch.model, batch.sample
        passes = self.cfg.kd_iterations if batch.training else 1
        gold_weight, kd_weight = self.weights(batch)
        target, found = sample["target"].reshape(-1), []
        weights: Tensor | None = None
        with ExitStack() as stack:
            if passes > 1:
                alike = [] if self.teachers is None or self.cfg.teacher_dropout_passes else self.teachers.models
                stack.enter_context(encoding_once([model, *alike]))
            for number in range(passes):
                student = self.student(model, sample["net_input"])
                teachers = self._teachers(sample, model, batch.training)
                if number == 0:
                    batch.outputs, batch.teachers = student, teachers
                if teachers is None:
                    return self._gold(student, target), 0
                if number == 0:
                    weights = self.select(student, target, self.padding_idx, batch.training)
                losses = self._loss(
                    student, teachers, target, gold_weight=gold_weight, kd_weight=kd_weight / passes, weights=weights
                )
                found.append(losses)
                gold_weight = 0.0
                if number + 1 < passes:
                    sample = _continued(sample, best_entries(student))
        first = found[0]
        kd = torch.stack([one.kd for one in found]).mean()
        loss = first.loss if passes == 1 else torch.stack([one.loss for one in found]).sum()
        return first._replace(loss=loss, kd=kd), sample["ntokens"]

    def _on_policy(self, batch: Batch) -> WordLevelKDLoss:
        """The gold part on the references, the teacher's on samples of the student."""
        model, sample = batch.model, batch.sample
        gold_weight, kd_weight = self.weights(batch)
        sampled = student_samples(model, self.task, sample, self._seed())
        scale = sample["ntokens"] / sampled["ntokens"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and gold_weight > 0):
            batch.outputs = self.student(model, sample["net_input"])
            gold = self._gold(batch.outputs, sample["target"])
        student = self.student(model, sampled["net_input"])
        teachers = self._teachers(sampled, model, training=True)
        assert teachers is not None, "the rules ask for a live teacher"
        target = sampled["target"].reshape(-1)
        kd = self._loss(student, teachers, target, gold_weight=0.0, kd_weight=kd_weight * scale)
        return gold._replace(loss=gold_weight * gold.loss + kd.loss, kd=kd.kd * scale, agreement=kd.agreement * scale)

    def _seed(self) -> int:
        """Another seed for each draw; fairseq seeds torch for each update, the same after a resumption."""
        seed = torch.initial_seed()
        self._draws = (seed, self._draws[1] + 1 if self._draws[0] == seed else 0)
        return seed_of("word_level_kd", *self._draws)

    def _teachers(self, sample: dict[str, Any], model: nn.Module, training: bool) -> Teachers | None:
        """The teachers' outputs for the batch; None where it comes from a split without a cache."""
        if self.teachers is not None:
            passes = self.cfg.teacher_dropout_passes if training else 0
            dtype, seed = next(model.parameters()).dtype, self._seed() if passes else 0
            return self.teachers.outputs(sample, dtype, str(self.cfg.loss_from), passes, seed)
        cached = sample.get(SAMPLE_KEY)
        return None if cached is None else TopK(*(cached[k].flatten(0, 1) for k in ("ids", "probabilities", "rest")))

    def _gold(self, student: Output, target: Tensor) -> WordLevelKDLoss:
        loss, nll = self.cross_entropy(student, target)
        zero = torch.zeros_like(nll)
        return WordLevelKDLoss(loss, loss.detach(), nll, zero, zero)


def _teacher_problems(cfg: Any) -> Iterator[str]:
    if not (cfg.teacher_path or cfg.teacher_cache):
        yield "--teacher-path: must name the teacher's checkpoint, or --teacher-cache its cache, got neither"
    if cfg.teacher_cache:
        live = {"kd_divergence": "forward_kl", "kd_ranking": 0, "kd_iterations": 1, "on_policy_fraction": 0,
                "teacher_dropout_passes": 0}  # fmt: skip
        for name, default in live.items():
            if (value := plain(getattr(cfg, name))) != default:
                yield f"{flag(name)} {value}: needs the teacher itself, not --teacher-cache"


def _continued(sample: dict[str, Any], best: Tensor) -> dict[str, Any]:
    """The batch with the best words (B · T,) as the prefix; the first token stays."""
    net_input = sample["net_input"]
    previous = net_input["prev_output_tokens"]
    shifted = torch.cat([previous[:, :1], best.view_as(previous)[:, :-1].to(previous)], dim=1)
    return {**sample, "net_input": {**net_input, "prev_output_tokens": shifted}}
