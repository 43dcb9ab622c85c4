"""Criterion ``sequence_level_kd``: learn the K best translations of a teacher, each with its weight."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from fairseq import utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.criterions.shared import SharedConfig, check_rules, label_smoothing_rule, logits_rule, total
from fairseq_compress.datasets.k_best import SAMPLE_KEY, attach_k_best
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.label_smoothed import label_smoothed_loss
from fairseq_compress.functional.losses.outputs import compute_dtype
from fairseq_compress.models.student_output import student_output, unwrapped


@dataclass
class SequenceLevelKDConfig(SharedConfig):
    """Options of :class:`SequenceLevelKDCriterion`."""

    sequence_kd_temperature: float = field(
        default=1.0, metadata={"help": "temperature T > 0 over the teacher's scores; a small T is the best one only"}
    )
    k_best: Optional[int] = field(  # noqa: UP045 - fairseq's parser knows Optional only
        default=None, metadata={"help": "train on the first K hypotheses of each source (default: all in the data)"}
    )


def check_options(cfg: SequenceLevelKDConfig) -> None:
    """Raise one :class:`ConfigError` that lists every option out of its rule."""
    temperature = cfg.sequence_kd_temperature
    check_rules(
        (
            (not 0 < temperature < math.inf, f"--sequence-kd-temperature: must be greater than 0, got {temperature}"),
            (cfg.k_best is not None and cfg.k_best < 1, f"--k-best: must be at least 1, got {cfg.k_best}"),
            label_smoothing_rule(cfg.label_smoothing),
        )
    )


class _Rows(NamedTuple):
    """What the loss is computed over: R hypotheses of B sources."""

    net_input: dict[str, Any]
    target: Tensor  # (R, T)
    weights: Tensor | None  # (R,); None where all are 1
    sources: Tensor | None  # (R,), row of the source; None where it is 0, 1, ..., R - 1
    ntokens: int
    weighted_ntokens: float


@register_criterion("sequence_level_kd", dataclass=SequenceLevelKDConfig)
class SequenceLevelKDCriterion(FairseqCriterion):
    r"""L = -Σ_k q_k log p(y_k | x), q_k ∝ exp(score_k / T), over the K best hypotheses y_k of a teacher for x.

    The scores are length-normalized log-probabilities in nats. The loss of each hypothesis is label-smoothed
    cross-entropy, ``sample_size`` is Σ_k q_k len_k (or sources, with ``--sentence-avg``). K = 1 is sequence-level
    distillation (Kim and Rush 2016, arXiv:1606.07947) and the same as ``fused_label_smoothed_cross_entropy`` on the
    1-best text, bit by bit. The encoder reads each source once; its output is shared by the K hypotheses.

    The hypotheses come from ``fairseq-compress binarize-hypotheses``. A validation split needs none: there the loss is
    that of the reference. Logged in bits: ``loss`` and ``nll_loss``, both with the weights.

    Raises:
        ConfigError: an option is out of its rule, or the task cannot carry hypotheses.
        DataError: when a split is loaded: its hypotheses are missing, damaged or of other data.
    """

    def __init__(self, cfg: SequenceLevelKDConfig, task: FairseqTask) -> None:
        super().__init__(task)
        check_options(cfg)
        check_rules([logits_rule(task)])
        self.cfg = cfg
        attach_k_best(task, cfg.k_best, cfg.sequence_kd_temperature)

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, float, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and sums to log."""
        rows = _rows_of(sample)
        with _repeated_encoder_output(model, rows.sources):
            output = student_output(model, rows.net_input, str(self.cfg.loss_from))
        weights = rows.weights
        if weights is not None:
            weights = weights[:, None].expand_as(rows.target).reshape(-1).to(compute_dtype(output))
        losses = label_smoothed_loss(
            output,
            rows.target.reshape(-1),
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
            weights=weights,
        )
        sources = sample["target"].size(0)
        sample_size = sources if self.cfg.sentence_avg else rows.weighted_ntokens
        logging_output = {
            "loss": losses.loss.detach(),
            "nll_loss": losses.nll,
            "ntokens": rows.ntokens,
            "weighted_ntokens": rows.weighted_ntokens,
            "nsentences": sources,
            "nhypotheses": rows.target.size(0),
            "sample_size": sample_size,
        }
        return losses.loss, sample_size, logging_output

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Turn summed outputs of all processes and batches into what is logged."""

        sample_size, tokens, sources = (
            total(logging_outputs, key) for key in ("sample_size", "weighted_ntokens", "nsentences")
        )
        metrics.log_scalar("loss", total(logging_outputs, "loss") / sample_size / math.log(2), sample_size, round=3)
        metrics.log_scalar("nll_loss", total(logging_outputs, "nll_loss") / tokens / math.log(2), tokens, round=3)
        metrics.log_scalar("hypotheses", total(logging_outputs, "nhypotheses") / sources, sources, round=2)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def _rows_of(sample: dict[str, Any]) -> _Rows:
    """The hypotheses of a batch, or its references where there are none."""
    net_input, target = sample["net_input"], sample["target"]
    rows = sample.get(SAMPLE_KEY)
    if rows is None:
        return _Rows(net_input, target, None, None, sample["ntokens"], sample["ntokens"])
    net_input = {**net_input, "prev_output_tokens": rows["prev_output_tokens"]}
    tokens = rows["ntokens"], rows["weighted_ntokens"]
    if len(rows["target"]) == len(target):  # one of each source
        return _Rows(net_input, rows["target"], None, None, *tokens)
    return _Rows(net_input, rows["target"], rows["weights"], rows["sources"], *tokens)


@contextmanager
def _repeated_encoder_output(model: nn.Module, sources: Tensor | None) -> Iterator[None]:
    """While this is open, the encoder's output of B sources goes to the decoder as R rows, row r of ``sources[r]``.

    A hook of the encoder, so that everything goes through the forward of the model as DDP has wrapped it, and for any
    encoder that beam search works with: that repeats its output in the same way.

    Raises:
        ConfigError: the model has no such encoder.
    """
    if sources is None:
        yield
        return
    encoder: Any = getattr(unwrapped(model), "encoder", None)
    if not hasattr(encoder, "reorder_encoder_out"):
        raise ConfigError(f"--criterion sequence_level_kd: needs an encoder-decoder model, got {type(model).__name__}")
    hook = encoder.register_forward_hook(lambda module, _, output: module.reorder_encoder_out(output, sources))
    try:
        yield
    finally:
        hook.remove()
