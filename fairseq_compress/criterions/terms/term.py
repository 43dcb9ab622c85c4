"""What a loss term is, and what all of them share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from fairseq.dataclass import FairseqDataclass
from omegaconf import II
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.functional.layer_map import Moment
from fairseq_compress.models.layer_recorder import Recorded
from fairseq_compress.models.student_output import SOURCES, why_no_logits
from fairseq_compress.options import option

EVERYTHING = Moment(output=True, layers=True, pairs=())


@fairseq_options
class TermOptions(FairseqDataclass):
    """Options of every criterion."""

    label_smoothing: float = option(0.0, "epsilon of label smoothing", range="[0, 1)")
    loss_from: str = option(
        "auto",
        "compute the loss from the last hidden states and the output matrix, so that the logits of a whole batch never "
        "exist, or from logits; auto takes hidden states where the model allows it",
        choices=SOURCES,
    )
    sentence_avg: bool = II("optimization.sentence_avg")


@dataclass
class Batch:
    """A batch as the terms of a criterion see it."""

    model: nn.Module
    """The student as fairseq's trainer has wrapped it."""
    sample: dict[str, Any]
    training: bool
    now: Moment = EVERYTHING
    """Which terms count in the loss."""
    seen: Moment = EVERYTHING
    """Which terms are computed: in evaluation all of them."""
    student: Recorded = field(default_factory=Recorded)
    """What was recorded of the student while the first term ran it; ``teacher`` of the teacher."""
    teacher: Recorded = field(default_factory=Recorded)
    padding: dict[str, Tensor] = field(default_factory=dict)
    """(B, T), true at padding, of ``encoder`` and ``decoder``."""
    sample_size: float = 0.0
    """Of the first term, for those that follow."""
    outputs: Any = None
    """What the first term leaves for others that belong to it."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """What several terms compute alike."""


class Found(NamedTuple):
    """What a term makes of a batch."""

    loss: Tensor | None
    """A sum over the batch, with its weight; None where the term does not count."""
    logged: dict[str, Any]
    """Sums over the batch. The first term gives ``ntokens``, ``nsentences`` and ``sample_size`` too."""


class Metric(NamedTuple):
    """What is logged of a sum: ``factor`` · sum / Σ ``per``, in bits or as it is."""

    key: str
    per: str = "ntokens"
    bits: bool = True
    digits: int = 3
    factor: float = 1.0
    name: str | None = None
    """Under which it is logged; the key by default."""
    only_with: str | None = None
    """Nothing is logged while the sum of this key is 0."""


class Term:
    """One addend of the loss of a criterion.

    The first term of a criterion runs the student; the others see what it left in the :class:`Batch`. A subclass
    states its dataclass of ``options`` and its ``metrics``.
    """

    options: ClassVar[type[TermOptions]] = TermOptions
    metrics: ClassVar[tuple[Metric, ...]] = ()

    def __init__(self, cfg: Any, task: Any) -> None:
        self.cfg, self.task, self.padding_idx = cfg, task, task.target_dictionary.pad()

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        """Whether these options give the term a weight; otherwise it is not made."""
        return True

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type["Term"]]) -> Iterator[str]:
        """A message for each broken rule between options, of the task, or of the student; ``kinds``: the whole list."""
        # With a task that does not know its student, nothing is checked.
        if (reason := why_no_logits(getattr(task, "student", None))) is not None:
            yield reason

    @property
    def module(self) -> tuple[str, nn.Module] | None:
        """Parameters that are learned with the student: the name under which checkpoints have them, and a module."""
        return None

    def __call__(self, batch: Batch) -> Found:
        """The loss of a batch."""
        raise NotImplementedError


def counts_of(sample: dict[str, Any], cfg: Any) -> dict[str, int | float]:
    """What the first term logs of a batch of fairseq."""
    tokens, sentences = sample["ntokens"], sample["target"].size(0)
    return {"ntokens": tokens, "nsentences": sentences, "sample_size": sentences if cfg.sentence_avg else tokens}
