"""The base class of loss terms."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from fairseq.dataclass import FairseqDataclass
from omegaconf import II
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.functional.layer_map import Moment
from fairseq_compress.functional.losses.label_smoothed import LabelSmoothedLoss, label_smoothed_loss
from fairseq_compress.functional.losses.outputs import Output
from fairseq_compress.models.layer_recorder import Recorded
from fairseq_compress.models.student_output import SOURCES, student_output, why_no_logits
from fairseq_compress.options import option


@fairseq_options
class TermOptions(FairseqDataclass):
    """Options of every criterion."""

    label_smoothing: float = option(0.0, "epsilon of label smoothing", range="[0, 1)")
    loss_from: str = option(
        "auto",
        "hidden: compute the loss from the last hidden states and the output matrix, without the logits of a whole "
        "batch in memory; logits: from the logits; auto: hidden where the model allows it",
        choices=SOURCES,
    )
    sentence_avg: bool = II("optimization.sentence_avg")


_EVERYTHING = Moment(output=True, layers=True, pairs=())


@dataclass
class Batch:
    """A batch, and what the terms of a criterion pass on to each other."""

    model: nn.Module
    """The student as fairseq's trainer has wrapped it."""
    sample: dict[str, Any]
    training: bool
    now: Moment = _EVERYTHING
    """Which terms count in the loss."""
    seen: Moment = _EVERYTHING
    """Which terms are computed: in evaluation all of them."""
    student: Recorded = field(default_factory=Recorded)
    """Recorded while the first term ran the student."""
    teacher: Recorded = field(default_factory=Recorded)
    padding: dict[str, Tensor] = field(default_factory=dict)
    """(B, T), true at padding, of ``encoder`` and ``decoder``."""
    sample_size: float = 0.0
    """Of the first term."""
    outputs: Any = None
    """The first term's :data:`Output` of the student for the references, N rows as in ``sample["target"]``; with dual
    vocabularies the outputs of student and teacher; None without references."""
    teachers: Any = None
    """The teachers' outputs for the same rows, a list or a ``TopK``; None without teachers."""
    cache: dict[Any, Any] = field(default_factory=dict)
    """Intermediate results that several terms use."""


class Found(NamedTuple):
    """Result of a term."""

    loss: Tensor | None
    """Weighted sum over the batch; None where the term does not count."""
    logged: dict[str, Any]
    """Sums over the batch. The first term gives ``ntokens``, ``nsentences`` and ``sample_size`` too."""


class Metric(NamedTuple):
    """Logged value ``factor`` · sum / Σ ``per``, in bits or as it is."""

    key: str
    per: str = "ntokens"
    bits: bool = True
    digits: int = 3
    factor: float = 1.0
    name: str | None = None
    """Logged name; default: the key."""
    only_with: str | None = None
    """Not logged while the sum of this key is 0."""


class Term:
    """One addend of the loss of a criterion; a subclass declares its ``options`` and ``metrics``.

    The first term of a criterion runs the student; the others use what it stored in the :class:`Batch`.
    """

    options: ClassVar[type[TermOptions]] = TermOptions
    metrics: ClassVar[tuple[Metric, ...]] = ()
    of_teacher: ClassVar[bool] = True
    """Whether it uses the teacher itself, if it is not the first."""

    def __init__(self, cfg: Any, task: Any) -> None:
        self.cfg, self.task, self.padding_idx = cfg, task, task.target_dictionary.pad()

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        """Whether these options give the term a weight; otherwise it is not instantiated."""
        return True

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type["Term"]]) -> Iterator[str]:
        """A message for each broken rule of options, task or student; ``kinds``: all terms of the criterion."""
        if (reason := why_no_logits(getattr(task, "student", None))) is not None:
            yield reason

    @property
    def module(self) -> tuple[str, nn.Module] | None:
        """Parameters trained with the student: their name in checkpoints, and a module."""
        return None

    def recording(self, batch: Batch) -> AbstractContextManager[Any]:
        """In which the first term runs the student; for terms that record tensors inside of it."""
        return nullcontext()

    def __call__(self, batch: Batch) -> Found:
        """The loss of a batch."""
        raise NotImplementedError

    def student(self, model: nn.Module, net_input: dict[str, Any]) -> Output:
        """Output of the student by ``--loss-from``."""
        return student_output(model, net_input, str(self.cfg.loss_from))

    def cross_entropy(self, output: Output, target: Tensor, weights: Tensor | None = None) -> LabelSmoothedLoss:
        """Label-smoothed cross-entropy, a sum over the target tokens."""
        return label_smoothed_loss(
            output,
            target.reshape(-1),
            label_smoothing=self.cfg.label_smoothing,
            padding_idx=self.padding_idx,
            weights=weights,
        )


def counts_of(sample: dict[str, Any], cfg: Any) -> dict[str, int | float]:
    """``ntokens``, ``nsentences`` and ``sample_size`` of a batch of fairseq."""
    tokens, sentences = sample["ntokens"], sample["target"].size(0)
    return {"ntokens": tokens, "nsentences": sentences, "sample_size": sentences if cfg.sentence_avg else tokens}
