"""Terms inside of the network: hidden states and attention maps of the student against those of its teacher."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fairseq_compress.compat import fairseq_options
from fairseq_compress.criterions.terms.term import Batch, Found, Metric, Term, TermOptions
from fairseq_compress.functional.layer_map import PARTS, Moment, Pair, Transfer
from fairseq_compress.functional.losses.layer_losses import unpadded
from fairseq_compress.models.layer_recorder import Sizes
from fairseq_compress.modules.layer_maps import LayerMaps
from fairseq_compress.options import option


@fairseq_options
class TransferOptions(TermOptions):
    """Options of every :class:`LayerTerm`: which layers, and when."""

    layer_map: str | None = option(
        None,
        "for each student layer in order, the teacher layer it learns from (from 0, - for none): 'encoder:1,3,5 "
        "decoder:2,-' (default: spread evenly, the last learns from the last)",
    )
    transfer: str = option(
        "auxiliary",
        "auxiliary: all losses at once. joint: first a layer phase with the losses of layers, without dropout, on "
        "the teacher's embeddings (--init-from-teacher); then the losses of the output, with a new optimizer and "
        "schedule. progressive: as joint, one layer after the other from the bottom up",
        choices=("auxiliary", "joint", "progressive"),
    )
    transfer_updates: int = option(
        0,
        "length of the layer phase of --transfer joint or progressive in updates, a part of --max-update",
        needs="transfer=joint|progressive",
    )
    transfer_lower_lr: float = option(
        0.1,
        "learning rate factor for layers trained in earlier stages of --transfer progressive; 0 freezes them",
        range="[0, 1]",
        needs="transfer=progressive",
    )


class Fit(NamedTuple):
    """Sizes of a student and its teacher, and the mapped pairs of layers."""

    student: Sizes
    teacher: Sizes
    pairs: tuple[Pair, ...]


class LayerTerm(Term):
    """A loss of hidden states or attention maps, with the weight ``NAME_weight`` and logged as ``NAME_loss``.

    A subclass adds its options to :class:`TransferOptions`, names what to record of both models (:meth:`sites`), and
    computes the loss (:meth:`values`). :class:`~fairseq_compress.criterions.layer_transfer.LayerTransfer` sets
    ``fit``, ``transfer`` and ``maps``.
    """

    name: ClassVar[str]
    options: ClassVar[type[TermOptions]] = TransferOptions
    at_output: ClassVar[bool] = False
    """Whether it belongs to the output phase of a transfer or to the layer phase."""
    of_outputs: ClassVar[bool] = False
    """Whether it compares outputs of layers, and so trains whole layers."""
    fit: Fit
    transfer: Transfer
    maps: LayerMaps

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
    def parts(cls, cfg: Any) -> set[str]:
        """The parts of the model, encoder and decoder, whose mapped layers it compares."""
        return set()

    @classmethod
    def uses_layer_map(cls, cfg: Any) -> bool:
        """Whether it compares the pairs of the layer map."""
        return bool(cls.parts(cfg))

    @classmethod
    def student_problems(cls, cfg: Any, student: nn.Module) -> Iterator[str]:
        """Broken requirements on the student."""
        yield from ()

    def teacher_problems(self, fit: Fit) -> Iterator[str]:
        """Broken requirements on the teacher of this student."""
        yield from ()

    def widths(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        """Required linear maps: name -> widths of student and teacher."""
        return {}

    def heads(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        """Required convolutions of attention maps: name -> numbers of heads of student and teacher."""
        return {}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        """What to record of ``student`` or ``teacher``: arguments of :func:`.layer_recorder.recording`."""
        raise NotImplementedError

    def values(self, batch: Batch) -> list[Tensor]:
        """Addends of the unweighted loss; empty where nothing was recorded."""
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
    """The mean of ``pair_loss`` over the mapped pairs of layers, of their outputs."""

    of_outputs = True

    @staticmethod
    def pair_loss(student: Tensor, teacher: Tensor) -> Tensor:
        """The sum over the N positions that are not padding, of outputs (N, C) of the teacher's width."""
        raise NotImplementedError

    @classmethod
    def parts(cls, cfg: Any) -> set[str]:
        return set(PARTS)

    def widths(self, fit: Fit) -> Mapping[str, tuple[int, int]]:
        return {_name(pair): (fit.student.widths[pair.part], fit.teacher.widths[pair.part]) for pair in fit.pairs}

    def sites(self, side: str, seen: Moment) -> dict[str, Any]:
        return {"layers": [(pair.part, getattr(pair, side)) for pair in seen.pairs]}

    def values(self, batch: Batch) -> list[Tensor]:
        found = []
        for pair in batch.seen.pairs:
            if pair not in batch.cache:
                padding = batch.padding[pair.part]
                own = unpadded(batch.student.layers[pair.part, pair.student], padding)
                other = unpadded(batch.teacher.layers[pair.part, pair.teacher], padding)
                batch.cache[pair] = self.maps(_name(pair), own), other
            found.append(self.pair_loss(*batch.cache[pair]) / len(self.transfer.pairs))
        return found


def _name(pair: Pair) -> str:
    return f"{pair.part}_{pair.student}"
