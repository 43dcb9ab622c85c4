"""Options of ``word_level_kd`` and of the criterions built on it, and the rules between them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum

from fairseq_compress.criterions.shared import Rule, SharedConfig, label_smoothing_rule
from fairseq_compress.functional.losses.divergences import KINDS

SELECTIONS = ("none", "batch", "queue")


@dataclass
class WordLevelKDConfig(SharedConfig):
    """Options of :class:`fairseq_compress.criterions.word_level_kd.WordLevelKDCriterion`."""

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
    kd_divergence: ChoiceEnum(list(KINDS)) = field(  # type: ignore[valid-type]
        default="forward_kl",
        metadata={"help": "from the teacher q to the student p: KL(q|p), KL(p|q), or Jensen-Shannon with --jsd-beta"},
    )
    jsd_beta: float = field(
        default=0.5, metadata={"help": "beta in (0, 1) of b KL(q|m) + (1-b) KL(p|m), m = bq + (1-b)p"}
    )
    kd_ranking: int = field(
        default=0, metadata={"help": "add the hinge loss on the order of the teacher's k best words (TIE-KD: 5)"}
    )
    kd_iterations: int = field(
        default=1,
        metadata={"help": "decoder passes N; from the second on, the student's best words are the prefix (TIE-KD: 3)"},
    )
    selective_kd: ChoiceEnum(list(SELECTIONS)) = field(  # type: ignore[valid-type]
        default="none",
        metadata={"help": "distil only the tokens that the student finds hardest: of the batch, or of a queue"},
    )
    selective_kd_rate: float = field(default=0.5, metadata={"help": "share in (0, 1) of the tokens that is distilled"})
    selective_kd_queue: int = field(default=30000, metadata={"help": "tokens in the queue of --selective-kd queue"})
    on_policy_fraction: float = field(
        default=0.0,
        metadata={"help": "share in [0, 1] of the batches in which the teacher judges samples of the student"},
    )
    teacher_dropout_passes: int = field(
        default=0, metadata={"help": "the teacher is the mean over so many passes with dropout (0: one without)"}
    )


def word_level_rules(cfg: WordLevelKDConfig, sees_inside: bool = False) -> Iterator[Rule]:
    """What every option must be, and what does not go together; the teacher may be needed beside its cache."""
    yield (
        not (cfg.teacher_path or cfg.teacher_cache),
        "--teacher-path: must name the teacher's checkpoint, or --teacher-cache its cache, got neither",
    )
    yield (
        not 0 < cfg.kd_temperature < math.inf,
        f"--kd-temperature: must be greater than 0, got {cfg.kd_temperature}",
    )
    yield not 0 <= cfg.kd_alpha <= 1, f"--kd-alpha: must be in [0, 1], got {cfg.kd_alpha}"
    yield label_smoothing_rule(cfg.label_smoothing)
    yield not 0 < cfg.jsd_beta < 1, f"--jsd-beta: must be in (0, 1), got {cfg.jsd_beta}"
    yield cfg.kd_ranking < 0, f"--kd-ranking: must be at least 0, got {cfg.kd_ranking}"
    yield cfg.kd_iterations < 1, f"--kd-iterations: must be at least 1, got {cfg.kd_iterations}"
    rate, size = cfg.selective_kd_rate, cfg.selective_kd_queue
    yield not 0 < rate < 1, f"--selective-kd-rate: must be in (0, 1), got {rate}"
    yield size < 1, f"--selective-kd-queue: must be at least 1, got {size}"
    fraction, passes = cfg.on_policy_fraction, cfg.teacher_dropout_passes
    yield not 0 <= fraction <= 1, f"--on-policy-fraction: must be in [0, 1], got {fraction}"
    yield passes < 0, f"--teacher-dropout-passes: must be at least 0, got {passes}"
    yield from _combinations(cfg)
    yield (
        bool(cfg.teacher_cache and cfg.teacher_data and not sees_inside),
        f"--teacher-data: must not be given with --teacher-cache, which has checksums of its dictionaries, "
        f"got {cfg.teacher_data}",
    )


def _combinations(cfg: WordLevelKDConfig) -> Iterator[Rule]:
    kind, selective = str(cfg.kd_divergence), str(cfg.selective_kd)
    yield kind != "jsd" and cfg.jsd_beta != 0.5, f"--jsd-beta: requires --kd-divergence jsd, got {kind}"
    yield (
        selective == "none" and cfg.selective_kd_rate != 0.5,
        "--selective-kd-rate: requires --selective-kd batch or queue, got none",
    )
    yield (
        selective != "queue" and cfg.selective_kd_queue != 30000,
        f"--selective-kd-queue: requires --selective-kd queue, got {selective}",
    )
    yield (
        cfg.kd_iterations > 1 and cfg.on_policy_fraction > 0,
        f"--kd-iterations: must be 1 with --on-policy-fraction, which chooses the prefix too, got {cfg.kd_iterations}",
    )
    yield (
        selective != "none" and cfg.on_policy_fraction > 0,
        f"--selective-kd: must be none with --on-policy-fraction, whose samples have no reference, got {selective}",
    )
    if cfg.teacher_cache:
        live = "needs the teacher itself, not --teacher-cache"
        yield kind != "forward_kl", f"--kd-divergence {kind}: {live}"
        yield cfg.kd_ranking > 0, f"--kd-ranking {cfg.kd_ranking}: {live}"
        yield cfg.kd_iterations > 1, f"--kd-iterations {cfg.kd_iterations}: {live}"
        yield cfg.on_policy_fraction > 0, f"--on-policy-fraction {cfg.on_policy_fraction}: {live}"
        yield cfg.teacher_dropout_passes > 0, f"--teacher-dropout-passes {cfg.teacher_dropout_passes}: {live}"
