"""What our criterions have in common: options, their rules, and what they log."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairseq import utils
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from omegaconf import II

from fairseq_compress.errors import ConfigError
from fairseq_compress.models.student_output import SOURCES, why_no_logits

Rule = tuple[bool, str]
"""Whether it is broken, and what to say then."""


@dataclass
class SharedConfig(FairseqDataclass):
    """Options of every criterion of ours."""

    label_smoothing: float = field(default=0.0, metadata={"help": "epsilon in [0, 1) for label smoothing"})
    loss_from: ChoiceEnum(list(SOURCES)) = field(  # type: ignore[valid-type]
        default="auto",
        metadata={
            "help": "compute the loss from the last hidden states and the output matrix, so that the logits of a whole "
            "batch never exist, or from logits; auto takes hidden states where the model allows it"
        },
    )
    sentence_avg: bool = II("optimization.sentence_avg")


def label_smoothing_rule(label_smoothing: float) -> Rule:
    return not 0 <= label_smoothing < 1, f"--label-smoothing: must be in [0, 1), got {label_smoothing}"


def logits_rule(task: FairseqTask) -> Rule:
    """Whether the student gives a logit for each entry of the dictionary; with a task that does not tell, none."""
    reason = why_no_logits(getattr(task, "student", None))
    return reason is not None, str(reason)


def check_rules(rules: Iterable[Rule]) -> None:
    """Raise one :class:`ConfigError` that lists every rule that is broken."""
    problems = [message for broken, message in rules if broken]
    if problems:
        raise ConfigError("; ".join(problems))


def total(logging_outputs: list[dict[str, Any]], key: str) -> float:
    """The sum of a logged value over processes and batches."""
    return float(utils.item(sum(log.get(key, 0) for log in logging_outputs)))


def log_in_bits(logging_outputs: list[dict[str, Any]], per_token: Sequence[str] = ("nll_loss",)) -> None:
    """Log ``loss`` by sample and the values ``per_token`` by target token, in bits; the perplexity of ``nll_loss``."""
    sample_size, tokens = total(logging_outputs, "sample_size"), total(logging_outputs, "ntokens")
    metrics.log_scalar("loss", total(logging_outputs, "loss") / sample_size / math.log(2), sample_size, round=3)
    for key in per_token:
        metrics.log_scalar(key, total(logging_outputs, key) / tokens / math.log(2), tokens, round=3)
    metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
