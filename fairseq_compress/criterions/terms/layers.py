"""Terms inside of the network: hidden states and attention maps of the student against those of its teacher."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.layer_transfer import Fit, LayerTransfer, name_of, transfer_problems
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.functional.layer_map import PARTS, Moment
from fairseq_compress.functional.losses.layer_losses import unpadded
from fairseq_compress.options import option


@fairseq_options
class TransferOptions(TermOptions):
    """Options of every :class:`LayerTerm`: which layers, and when."""

    layer_map: str | None = option(
        None,
        "the teacher's layer, from 0, for each layer of the student in order, - for none: 'encoder:1,3,5 decoder:2,-' "
        "(default: spread evenly, the last learns from the last)",
    )
    transfer: str = option(
        "auxiliary",
        "auxiliary: all losses at once; joint: first a layer phase, with the losses of layers and no dropout, from "
        "the teacher's embeddings (--init-from-teacher), then the losses of the output with a fresh optimizer and "
        "schedule; progressive: the same, one layer after the other from the bottom up",
        choices=("auxiliary", "joint", "progressive"),
    )
    transfer_updates: int = option(
        0,
        "updates of the layer phase of --transfer joint and progressive, part of --max-update",
        needs="transfer=joint|progressive",
    )
    transfer_lower_lr: float = option(
        0.1,
        "factor of the learning rate of what earlier stages of --transfer progressive have trained; 0 freezes it",
        range="[0, 1]",
        needs="transfer=progressive",
    )


class LayerTerm(Term):
    """A term of what the models are inside. Its weight is the option ``NAME_weight``, it is logged as ``NAME_loss``.

    A subclass adds its options to :class:`TransferOptions`, says what to record of both models (:meth:`sites`), and
    gives the loss of it (:meth:`values`). Everything else comes from the
    :class:`~fairseq_compress.criterions.layer_transfer.LayerTransfer` of the criterion: teacher, layer map, maps
    between widths, and phases.
    """

    name: ClassVar[str]
    options: ClassVar[type[TermOptions]] = TransferOptions
    at_output: ClassVar[bool] = False
    """Whether it counts with the losses of the output or with those of layers, where a transfer has phases."""
    of_outputs: ClassVar[bool] = False
    """Whether it trains whole layers, by their outputs."""
    layers: LayerTransfer

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if hasattr(cls, "name"):
            cls.metrics = (Metric(f"{cls.name}_loss", bits=False, digits=4),)

    @classmethod
    def full_weight(cls, cfg: Any) -> float:
        """The weight that the options give."""
        return float(getattr(cfg, f"{cls.name}_weight"))

    @classmethod
    def counts(cls, cfg: Any) -> bool:
        return cls.full_weight(cfg) > 0

    @classmethod
    def problems(cls, cfg: Any, task: Any, kinds: Sequence[type[Term]]) -> Iterator[str]:
        yield from transfer_problems(cfg, task, [kind for kind in kinds if issubclass(kind, LayerTerm)])

    @classmethod
    def parts(cls, cfg: Any) -> set[str]:
        """The parts of the model whose mapped pairs of layers it compares."""
        return set()

    @classmethod
    def uses_layer_map(cls, cfg: Any) -> bool:
        """Whether the pairs of the layer map matter to it."""
        return bool(cls.parts(cfg))

    @classmethod
    def student_problems(cls, cfg: Any, student: nn.Module) -> Iterator[str]:
        """What the student must be."""
        yield from ()

    def teacher_problems(self, fit: Fit) -> Iterator[str]:
        """What the teacher must be for this student."""
        yield from ()

    def widths(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        """Linear maps that it needs: name -> widths of student and teacher."""
        return {}

    def heads(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        """Convolutions of attention maps that it needs: name -> numbers of heads of student and teacher."""
        return {}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        """What to record of ``student`` or ``teacher``: arguments of :func:`.layer_recorder.recording`."""
        raise NotImplementedError

    def values(self, batch: Batch) -> list[Tensor]:
        """The parts of the loss, without its weight: nothing where nothing was recorded."""
        raise NotImplementedError

    def decay(self) -> float:
        """A factor of the weight in training."""
        return 1.0

    def __call__(self, batch: Batch) -> Found:
        values = self.values(batch)
        if not values:
            return Found(None, {})
        value = torch.stack(values).sum()
        weight = self.full_weight(self.cfg) if (batch.now.output if self.at_output else batch.now.layers) else 0.0
        weight *= self.decay() if batch.training else 1.0
        return Found(weight * value if weight > 0 else None, {f"{self.name}_loss": value.detach()})


class PairTerm(LayerTerm):
    """A loss of the outputs of a layer and of the teacher's layer for it, the mean over the mapped pairs.

    A subclass gives ``pair_loss``; a file with one, its option and a criterion that lists it is all that a new
    term takes.
    """

    of_outputs = True

    @staticmethod
    def pair_loss(student: Tensor, teacher: Tensor) -> Tensor:
        """The sum over the N positions that are not padding, of outputs (N, C) of the teacher's width."""
        raise NotImplementedError

    @classmethod
    def parts(cls, cfg: Any) -> set[str]:
        return set(PARTS)

    def widths(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        return {name_of(pair): (fit.student.widths[pair.part], fit.teacher.widths[pair.part]) for pair in fit.pairs}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        return {"layers": [(pair.part, getattr(pair, side)) for pair in seen.pairs]}

    def values(self, batch: Batch) -> list[Tensor]:
        found = []
        for pair in batch.seen.pairs:
            if pair not in batch.cache:
                padding = batch.padding[pair.part]
                own = unpadded(batch.student.layers[pair.part, pair.student], padding)
                other = unpadded(batch.teacher.layers[pair.part, pair.teacher], padding)
                batch.cache[pair] = self.layers.maps(name_of(pair), own), other
            found.append(self.pair_loss(*batch.cache[pair]) / len(self.layers.transfer.pairs))
        return found
