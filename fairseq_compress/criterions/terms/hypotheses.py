"""The K best translations of a teacher, each with its weight (sequence-level distillation)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.datasets.k_best import SAMPLE_KEY, attach_k_best
from fairseq_compress.errors import ConfigError
from fairseq_compress.functional.losses.outputs import compute_dtype
from fairseq_compress.models.student_output import unwrapped
from fairseq_compress.options import option


@fairseq_options
class HypothesesOptions(TermOptions):
    """Options of :class:`Hypotheses`."""

    sequence_kd_temperature: float = option(
        1.0, "temperature of the weights of the hypotheses; a small T keeps only the best", range="(0, inf)"
    )
    k_best: int | None = option(
        None, "train on the K best hypotheses of each source (default: all in the data)", range="[1, inf)"
    )


class _Rows(NamedTuple):
    """R hypotheses of B sources."""

    net_input: dict[str, Any]
    target: Tensor  # (R, T)
    weights: Tensor | None  # (R,); None where all are 1
    sources: Tensor | None  # (R,), row of the source; None where it is 0, 1, ..., R - 1
    ntokens: int
    weighted_ntokens: float


class Hypotheses(Term):
    """-Σ_k q_k log p(y_k | x), label-smoothed: see the criterion ``sequence_level_kd``."""

    options = HypothesesOptions
    metrics = (
        Metric("nll_loss", "weighted_ntokens"),
        Metric("nhypotheses", "nsentences", bits=False, digits=2, name="hypotheses"),
    )

    def __init__(self, cfg: Any, task: Any) -> None:
        super().__init__(cfg, task)
        attach_k_best(task, cfg.k_best, cfg.sequence_kd_temperature)

    def __call__(self, batch: Batch) -> Found:
        rows = _rows_of(batch.sample)
        with _repeated_encoder_output(batch.model, rows.sources):
            output = self.student(batch.model, rows.net_input)
        weights = rows.weights
        if weights is not None:
            weights = weights[:, None].expand_as(rows.target).reshape(-1).to(compute_dtype(output))
        losses = self.cross_entropy(output, rows.target, weights)
        sources = batch.sample["target"].size(0)
        logged = {
            "nll_loss": losses.nll,
            "ntokens": rows.ntokens,
            "weighted_ntokens": rows.weighted_ntokens,
            "nsentences": sources,
            "nhypotheses": rows.target.size(0),
            "sample_size": sources if self.cfg.sentence_avg else rows.weighted_ntokens,
        }
        return Found(losses.loss, logged)


def _rows_of(sample: dict[str, Any]) -> _Rows:
    """The hypotheses of a batch, or its references where there are none."""
    net_input, target = sample["net_input"], sample["target"]
    if (rows := sample.get(SAMPLE_KEY)) is None:
        return _Rows(net_input, target, None, None, sample["ntokens"], sample["ntokens"])
    net_input = {**net_input, "prev_output_tokens": rows["prev_output_tokens"]}
    one_each = len(rows["target"]) == len(target)
    weights, sources = (None, None) if one_each else (rows["weights"], rows["sources"])
    return _Rows(net_input, rows["target"], weights, sources, rows["ntokens"], rows["weighted_ntokens"])


@contextmanager
def _repeated_encoder_output(model: nn.Module, sources: Tensor | None) -> Iterator[None]:
    """Repeat the encoder's output of B sources for the decoder as R rows, row r from ``sources[r]``.

    A forward hook with ``reorder_encoder_out``, as in beam search, so that DDP's forward runs as usual.
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
