"""Criterions as lists of terms."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from fairseq import utils
from fairseq.criterions import FairseqCriterion
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from torch import Tensor, nn

from fairseq_compress.compat import configured
from fairseq_compress.criterions.layer_transfer import LayerTransfer, transfer_problems
from fairseq_compress.criterions.terms.layers import LayerTerm
from fairseq_compress.criterions.terms.term import Batch, Metric, Term
from fairseq_compress.options import check

logger = logging.getLogger(__name__)


class TermCriterion(FairseqCriterion):
    """L = Σ terms. A subclass is registered with fairseq and lists its ``kinds`` of terms; weight 0 skips a term.

    Parameters of terms, such as maps between student and teacher, are parameters of the criterion: trained with the
    student and saved as the checkpoint's ``criterion``. ``fairseq-validate`` does not load them.
    """

    kinds: ClassVar[tuple[type[Term], ...]]

    def __init__(self, cfg: Any, task: FairseqTask) -> None:
        super().__init__(task)
        config, layer_kinds = getattr(type(self), "__dataclass"), [k for k in self.kinds if issubclass(k, LayerTerm)]
        rules = [kind.problems(cfg, task, self.kinds) for kind in self.kinds]
        check(configured(config, cfg), *rules, transfer_problems(cfg, task, layer_kinds) if layer_kinds else ())
        self.cfg = cfg
        self.terms = [kind(cfg, task) for kind in self.kinds if kind.counts(cfg)]
        inside = [term for term in self.terms if isinstance(term, LayerTerm)]
        self.layers = LayerTransfer(cfg, task, inside, getattr(self.terms[0], "teachers", None)) if inside else None
        for owner in (*self.terms, self.layers):
            if owner is not None and owner.module is not None:
                self.add_module(*owner.module)

    def forward(
        self, model: nn.Module, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, Any, dict[str, Any]]:
        """The loss summed over the batch, the ``sample_size`` that divides it, and the sums to log."""
        batch = Batch(model, sample, self.training)
        first, *others = self.terms
        with ExitStack() as stack:
            for each in (self.layers, *others):
                if each is not None:
                    stack.enter_context(each.recording(batch))
            loss, logged = first(batch)
        assert loss is not None
        batch.sample_size = logged["sample_size"]
        with torch.autocast(loss.device.type, enabled=False):
            for term in others:
                found = term(batch)
                loss = loss if found.loss is None else loss + found.loss
                logged |= found.logged
        if self.layers is not None and self.training:
            loss = loss + self.layers.maps.nothing()
        return loss, batch.sample_size, logged | {"loss": loss.detach()}

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the state, or warn and keep the initial maps where the checkpoint has none or others."""
        own = {key: value.shape for key, value in self.state_dict().items()}
        if state_dict is None or {key: value.shape for key, value in state_dict.items()} != own:
            logger.warning("the checkpoint does not have these maps from student to teacher: they start again")
            return None
        return super().load_state_dict(state_dict, *args, **kwargs)

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log the metrics of all terms, aggregated over processes and batches."""
        for metric in (Metric("loss", "sample_size"), *(metric for kind in cls.kinds for metric in kind.metrics)):
            count = total(logging_outputs, metric.per)
            if not any(metric.key in log for log in logging_outputs) or (
                metric.only_with is not None and not total(logging_outputs, metric.only_with)
            ):
                continue
            value = metric.factor * total(logging_outputs, metric.key) / count
            value = value / math.log(2) if metric.bits else value
            metrics.log_scalar(metric.name or metric.key, value, count, round=metric.digits)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def config_of(kinds: Sequence[type[Term]], name: str, module: str) -> Any:
    """The dataclass with the options of all terms, to be assigned to ``name`` in ``module``."""
    options = list(dict.fromkeys(kind.options for kind in kinds))
    bases = [one for one in options if not any(other is not one and issubclass(other, one) for other in options)]
    return dataclass(type(name, tuple(reversed(bases)), {"__module__": module}))


def total(logging_outputs: list[dict[str, Any]], key: str) -> float:
    """The sum of a logged value over processes and batches."""
    return float(utils.item(sum(log.get(key, 0) for log in logging_outputs)))
